"""One micro-batch decided by one routing state: who answers what, what is dropped, what is refused.

The loop below runs for every query of a deployment, so what a batch has in common is computed once, and structs are
built by position.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Literal, Protocol

import msgspec

from schemas.event import Arm, Domain, Purpose
from schemas.routing import RoutingState
from services.router.core.overload import OverloadPolicy, admit
from services.router.core.query import ParsedQuery
from services.router.core.rows import Route, Way, way_of
from twinloop.routing.assignment import Assigner, mirror_assignment
from twinloop.routing.domain_choice import DomainChooser


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


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """End the arrival at this position with an error answer."""

    position: int
    kind: Literal["deadline", "shed"]


class Decisions(msgspec.Struct, frozen=True):
    """Everything decided about one batch, in the order of arrival."""

    routes: list[Route]
    refusals: list[Refusal]
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
    now_ms = situation.now_ms
    # Nobody is refused before this share of the deadline has passed: low priority is the first to go.
    share = situation.policy.low_share if situation.is_backlogged else 1
    admitted: list[tuple[int, int, ParsedQuery]] = []
    refusals: list[Refusal] = []
    ended: dict[int, dict[str, None]] = {}
    duplicates = 0
    origin = -1
    fresh: dict[str, None] = {}
    past: Container[str] = ()
    for position, arrival in enumerate(arrivals):
        number, query = arrival.origin, arrival.query
        if number != origin:
            # Records of one partition come in runs.
            origin, fresh, past = number, ended.setdefault(number, {}), situation.seen(number)
        query_id = query.id
        if query_id in fresh or query_id in past:
            duplicates += 1
            continue
        fresh[query_id] = None
        if now_ms - query.asked_at >= share * query.deadline_ms:
            refused = _refused(situation, query)
            if refused is not None:
                refusals.append(Refusal(position, refused))
                continue
        admitted.append((position, number, query))
    return Decisions(
        _routes(admitted, situation),
        refusals,
        {number: list(ids) for number, ids in ended.items() if ids},
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


def _routes(admitted: Sequence[tuple[int, int, ParsedQuery]], situation: Situation) -> list[Route]:
    """Where each (position, origin, query) goes, mirrored copies behind their originals."""
    assigner, ways = Assigner(situation.state), _Ways(situation)
    has_mirror = situation.state.mirror is not None
    places = assigner.places([query.subject or query.id for _, _, query in admitted])
    routes: list[Route] = []
    for (position, origin, query), (bucket, unit) in zip(admitted, places, strict=True):
        arm = assigner.arm(bucket, opt_out=query.canary_opt_out)
        domain = query.domain or ways.chosen(arm, query.text)
        way = ways.known.get((origin, arm, domain)) or ways.add(origin, arm, domain)
        routes.append(Route(position, way, bucket, unit))
        # The slot that answers the user learns nothing from a copy of the same question.
        if has_mirror and arm == "active" and not query.canary_opt_out:
            copy = mirror_assignment(situation.state, query.sticky_subject)
            if copy is not None:
                domain = query.domain or ways.chosen("shadow", query.text)
                routes.append(Route(position, ways.of_copies(origin, domain), copy.bucket, copy.unit))
    return routes


class _Ways:
    """The ways a batch goes, each made once."""

    def __init__(self, situation: Situation) -> None:
        self._situation, self._state = situation, situation.state
        self._choose: dict[Arm, Callable[[str], Domain]] = {}
        self._copies: dict[tuple[int, Domain], Way] = {}
        self.known: dict[tuple[int, Arm, Domain], Way] = {}
        """Those of users' queries, by origin, arm and domain."""

    def chosen(self, arm: Arm, text: str) -> Domain:
        """The domain by the rules of the arm's release."""
        choose = self._choose.get(arm)
        if choose is None:
            choose = self._choose[arm] = self._situation.chooser(self._release(arm)).choose
        return choose(text)

    def add(self, origin: int, arm: Arm, domain: Domain) -> Way:
        way = self.known[origin, arm, domain] = self._way(origin, arm, domain, "user")
        return way

    def of_copies(self, origin: int, domain: Domain) -> Way:
        """Mirrored copies go to the shadow."""
        way = self._copies.get((origin, domain))
        if way is None:
            way = self._copies[origin, domain] = self._way(origin, "shadow", domain, "mirror")
        return way

    def _release(self, arm: Arm) -> str:
        return self._state.active_release if arm == "active" else self._state.shadow_release

    def _way(self, origin: int, arm: Arm, domain: Domain, purpose: Purpose) -> Way:
        return way_of(
            slot=self._state.active if arm == "active" else self._state.shadow,
            arm=arm,
            release=self._release(arm),
            epoch=self._state.epoch,
            domain=domain,
            purpose=purpose,
            origin=origin,
            assigned_at=self._situation.now_ms,
            unconfirmed=self._situation.unconfirmed,
        )
