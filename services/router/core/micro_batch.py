"""One micro-batch decided by one routing state: who answers what, what is dropped, what is refused.

The loop below runs for every query of a deployment, so what a batch has in common is computed once, and structs are
built by position.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Literal, Protocol

import msgspec

from schemas.event import Domain
from schemas.routing import RoutingState
from services.router.core.overload import OverloadPolicy, admit
from services.router.core.query import ParsedQuery
from services.router.core.rows import Row
from twinloop.routing.assignment import Assigner, Assignment, mirror_assignment
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.stamp import Stamp


class Arriving(Protocol):
    """A parsed query and the partition of `queries` it came from."""

    @property
    def origin(self) -> int: ...

    @property
    def query(self) -> ParsedQuery: ...


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An arrival with nothing else to it."""

    origin: int
    query: ParsedQuery


class Route(msgspec.Struct, frozen=True, gc=False):
    """Send the arrival at this position of the batch to the stamp's slot; a mirrored copy is a route of its own."""

    position: int
    stamp: Stamp


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """End the arrival at this position with an error answer."""

    position: int
    kind: Literal["deadline", "shed"]


class Decisions(msgspec.Struct, frozen=True):
    """Everything decided about one batch, in the order of arrival."""

    routes: list[Route]
    refusals: list[Refusal]
    rows: dict[int, list[Row]]
    """Assignment rows by origin."""
    ended: dict[int, list[str]]
    """Ids by origin that must not be taken again: routed and refused ones."""
    duplicates: int


class Situation(msgspec.Struct, frozen=True):
    """What the whole batch is decided by; `now_ms` is milliseconds since 1970 UTC."""

    state: RoutingState
    chooser: Callable[[str], DomainChooser]
    """The rules of a release."""
    seen: Callable[[int], Container[str]]
    """The ids this origin routed within the window before `now_ms`."""
    now_ms: int
    policy: OverloadPolicy
    unconfirmed: bool = False
    is_backlogged: bool = False


def decide(arrivals: Sequence[Arriving], situation: Situation) -> Decisions:
    """Decides every arrival; pure. Raises NotReady where the rules of a release it needs are not prepared."""
    batch = _Batch(situation)
    now_ms, is_backlogged = situation.now_ms, situation.is_backlogged
    origins: dict[int, _Origin] = {}
    duplicates = 0
    for position, arrival in enumerate(arrivals):
        number, query = arrival.origin, arrival.query
        origin = origins.get(number)
        if origin is None:
            origin = origins[number] = _Origin(number, situation.seen(number))
        if query.id in origin.fresh or query.id in origin.seen:
            duplicates += 1
            continue
        origin.fresh[query.id] = None
        if is_backlogged or now_ms - query.asked_at >= query.deadline_ms:
            refused = _refused(situation, query)
            if refused is not None:
                batch.refusals.append(Refusal(position, refused))
                continue
        batch.route(position, origin, query)
    return Decisions(
        batch.routes,
        batch.refusals,
        {number: origin.rows for number, origin in origins.items() if origin.rows},
        {number: list(origin.fresh) for number, origin in origins.items() if origin.fresh},
        duplicates,
    )


def _refused(situation: Situation, query: ParsedQuery) -> Literal["deadline", "shed"] | None:
    admission = admit(
        situation.policy,
        priority=query.priority,
        waited_ms=situation.now_ms - query.asked_at,
        deadline_ms=query.deadline_ms,
        is_backlogged=situation.is_backlogged,
    )
    return None if admission == "route" else admission


class _Origin:
    """What one partition's part of the batch came to so far."""

    __slots__ = ("fresh", "number", "rows", "seen")

    def __init__(self, number: int, seen: Container[str]) -> None:
        self.number, self.seen = number, seen
        self.fresh: dict[str, None] = {}
        """Ids taken from this batch, in order."""
        self.rows: list[Row] = []


class _Batch:
    """Decisions in the making."""

    def __init__(self, situation: Situation) -> None:
        self.routes: list[Route] = []
        self.refusals: list[Refusal] = []
        self._situation = situation
        self._state, self._now_ms = situation.state, situation.now_ms
        self._unconfirmed = situation.unconfirmed
        self._has_mirror = situation.state.mirror is not None
        self._assign = Assigner(situation.state).assign
        self._choosers: dict[str, Callable[[str], Domain]] = {}

    def route(self, position: int, origin: _Origin, query: ParsedQuery) -> None:
        subject, opt_out = query.subject or query.id, query.canary_opt_out
        user = self._assign(subject, opt_out=opt_out)
        self._place(position, origin, query, user, "user")
        if self._has_mirror and not opt_out:
            copy = mirror_assignment(self._state, subject)
            # The slot that answers the user learns nothing from a copy of the same question.
            if copy is not None and copy.slot != user.slot:
                self._place(position, origin, query, copy, "mirror")

    def _place(
        self,
        position: int,
        origin: _Origin,
        query: ParsedQuery,
        assignment: Assignment,
        purpose: Literal["mirror", "user"],
    ) -> None:
        slot, arm, release = assignment.slot, assignment.arm, assignment.release
        epoch, bucket, unit = assignment.epoch, assignment.bucket, assignment.unit
        now_ms, unconfirmed = self._now_ms, self._unconfirmed
        domain = query.domain or self._chosen(release, query.text)
        stamp = Stamp(
            slot, arm, release, epoch, domain, purpose, origin.number, now_ms, bucket, unit, 0, unconfirmed
        )
        self.routes.append(Route(position, stamp))
        deadline_at = query.asked_at + query.deadline_ms
        origin.rows.append(
            Row(query.id, unit, bucket, slot, arm, release, epoch, purpose, domain, now_ms, deadline_at, 0, unconfirmed)
        )  # fmt: skip

    def _chosen(self, release: str, text: str) -> Domain:
        choose = self._choosers.get(release)
        if choose is None:
            choose = self._choosers[release] = self._situation.chooser(release).choose
        return choose(text)
