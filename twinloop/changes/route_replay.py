"""A change of rules replayed over recorded queries: which of them would go to another domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from schemas.changes import DomainMove, MovedQuery, RouteReport
from schemas.event import Domain

MAX_EXAMPLES = 20
MAX_PROBES = 50


@dataclass(frozen=True)
class Question:
    """A recorded query, or a probe of the examination."""

    id: str
    text: str
    domain: Domain | None = None
    """For a query what its producer fixed, for a probe what is right."""


class Chooser(Protocol):
    """Chooses domains by one set of rules."""

    def choose(self, text: str) -> Domain: ...


def route_report(
    before: Chooser,
    after: Chooser,
    *,
    queries: Iterable[Question],
    probes: Iterable[Question],
    prompt_changed: bool,
) -> RouteReport:
    """What the rules `after` would do differently; names ids and never texts. A query asked twice counts once."""
    asked = list({query.id: query for query in queries}.values())
    free = [query for query in asked if query.domain is None]
    moved = list(_moved(before, after, free))
    moves = Counter((each.before, each.after) for each in moved)
    known = list(probes)
    moved_probes = list(_moved(before, after, known))
    fixed_probes = {probe.id for probe in known if probe.domain is not None}
    return RouteReport(
        queries=len(free),
        fixed=len(asked) - len(free),
        moved=len(moved),
        moves=tuple(
            DomainMove(before=source, after=target, queries=count)
            for (source, target), count in sorted(moves.items(), key=lambda item: (-item[1], item[0]))
        ),
        examples=tuple(moved[:MAX_EXAMPLES]),
        probes=len(known),
        probes_right_before=_right(before, known),
        probes_right_after=_right(after, known),
        moved_probes=tuple(moved_probes[:MAX_PROBES]),
        unfixed_moved=sum(each.id not in fixed_probes for each in moved_probes),
        prompt_changed=prompt_changed,
    )


def _moved(before: Chooser, after: Chooser, questions: Iterable[Question]) -> Iterable[MovedQuery]:
    for question in questions:
        was, will_be = before.choose(question.text), after.choose(question.text)
        if was != will_be:
            yield MovedQuery(id=question.id, before=was, after=will_be)


def _right(chooser: Chooser, probes: Iterable[Question]) -> int:
    return sum(probe.domain is not None and chooser.choose(probe.text) == probe.domain for probe in probes)
