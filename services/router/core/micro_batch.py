"""One micro-batch decided by one routing state: who answers what, what is dropped, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from schemas.event import Domain
from schemas.routing import RoutingState
from services.router.core.overload import OverloadPolicy, admit
from services.router.core.query import ParsedQuery
from services.router.core.rows import Row, row_of
from twinloop.routing.assignment import Assignment, assign, mirror_assignment
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.stamp import Stamp, stamp_of


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A parsed query and the partition of `queries` it came from."""

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
    was_seen: Callable[[int, str], bool]
    """Whether this origin routed this id before."""
    now_ms: int
    policy: OverloadPolicy
    unconfirmed: bool = False
    is_backlogged: bool = False


def decide(arrivals: Sequence[Arrival], situation: Situation) -> Decisions:
    """Decides every arrival; pure. Raises NotReady where the rules of a release it needs are not prepared."""
    decisions = Decisions([], [], {}, {}, 0)
    in_batch: set[tuple[int, str]] = set()
    duplicates = 0
    for position, arrival in enumerate(arrivals):
        identity = (arrival.origin, arrival.query.id)
        if identity in in_batch or situation.was_seen(arrival.origin, arrival.query.id):
            duplicates += 1
            continue
        in_batch.add(identity)
        decisions.ended.setdefault(arrival.origin, []).append(arrival.query.id)
        _decide_one(position, arrival, situation, decisions)
    return msgspec.structs.replace(decisions, duplicates=duplicates)


def _decide_one(position: int, arrival: Arrival, situation: Situation, decisions: Decisions) -> None:
    query, state = arrival.query, situation.state
    admission = admit(
        situation.policy,
        priority=query.priority,
        waited_ms=situation.now_ms - query.asked_at,
        deadline_ms=query.deadline_ms,
        is_backlogged=situation.is_backlogged,
    )
    if admission != "route":
        decisions.refusals.append(Refusal(position, admission))
        return
    subject = query.subject or query.id
    user = assign(state, subject, opt_out=query.canary_opt_out)
    _place(position, arrival, situation, decisions, user, is_mirror=False)
    if state.mirror is not None and not query.canary_opt_out:
        copy = mirror_assignment(state, subject)
        # The slot that answers the user learns nothing from a copy of the same question.
        if copy is not None and copy.slot != user.slot:
            _place(position, arrival, situation, decisions, copy, is_mirror=True)


def _place(
    position: int,
    arrival: Arrival,
    situation: Situation,
    decisions: Decisions,
    assignment: Assignment,
    *,
    is_mirror: bool,
) -> None:
    query = arrival.query
    domain: Domain = query.domain or situation.chooser(assignment.release).choose(query.text)
    purpose: Literal["mirror", "user"] = "mirror" if is_mirror else "user"
    stamp = stamp_of(
        assignment,
        domain=domain,
        purpose=purpose,
        origin=arrival.origin,
        assigned_at=situation.now_ms,
        unconfirmed=situation.unconfirmed,
    )
    decisions.routes.append(Route(position, stamp))
    row = row_of(
        query.id,
        assignment,
        purpose=purpose,
        domain=domain,
        assigned_at=situation.now_ms,
        deadline_at=query.asked_at + query.deadline_ms,
        unconfirmed=situation.unconfirmed,
    )
    decisions.rows.setdefault(arrival.origin, []).append(row)
