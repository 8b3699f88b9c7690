"""What the router writes of each query as JSON, put together from parts: stamps, assignment rows, seen ids.

A batch goes few ways. Everything but bucket and unit is the same for all that go one way: it is spelled once.
What is put in between needs no escaping: numbers, hexadecimal digits, and ids whose spelling was checked.
`twinloop.routing.stamp`, `schemas.assignments.AssignmentBatch` and `schemas.seen_ids.SeenIds` accept every value made
here (tested).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from schemas.event import Arm, Domain, Purpose, Slot
from services.router.core.query import ParsedQuery
from twinloop.routing.stamp import Stamp

_encode = msgspec.json.Encoder().encode


class Way(msgspec.Struct, frozen=True, eq=False):
    """Where queries of one partition go, and all that their stamps have in common; compared by identity."""

    slot: Slot
    arm: Arm
    release: str
    epoch: int
    domain: Domain
    purpose: Purpose
    origin: int
    assigned_at: int
    unconfirmed: bool
    opening: str
    """The JSON fields that stamp and row share, up to the bucket's value."""


class _Shared(msgspec.Struct, frozen=True, gc=False):
    slot: Slot
    arm: Arm
    release: str
    epoch: int
    domain: Domain
    purpose: Purpose
    assigned_at: int
    hops: int
    unconfirmed: bool


def way_of(
    *,
    slot: Slot,
    arm: Arm,
    release: str,
    epoch: int,
    domain: Domain,
    purpose: Purpose,
    origin: int,
    assigned_at: int,
    unconfirmed: bool,
) -> Way:
    """The way of a first assignment; `assigned_at` is milliseconds since 1970 UTC."""
    shared = _encode(_Shared(slot, arm, release, epoch, domain, purpose, assigned_at, 0, unconfirmed))
    opening = shared[1:-1].decode() + ',"bucket":'
    return Way(slot, arm, release, epoch, domain, purpose, origin, assigned_at, unconfirmed, opening)


class Route(msgspec.Struct, frozen=True, gc=False):
    """Send the arrival at this position of the batch this way; a mirrored copy is a route of its own."""

    position: int
    way: Way
    bucket: int
    unit: str

    @property
    def stamp(self) -> Stamp:
        """What the routed record carries."""
        way = self.way
        return Stamp(
            way.slot, way.arm, way.release, way.epoch, way.domain, way.purpose, way.origin, way.assigned_at,
            self.bucket, self.unit, 0, way.unconfirmed,
        )  # fmt: skip


def spell(routes: Sequence[Route], queries: Sequence[ParsedQuery]) -> Iterator[tuple[bytes, str]]:
    """Of each route its `stamp` as JSON and its `AssignmentRow`; `queries` is what the routes' positions count."""
    for route in routes:
        way, query = route.way, queries[route.position]
        common = f'{way.opening}{route.bucket},"unit":"{route.unit}"}}'
        stamp = f'{{"origin":{way.origin},{common}'.encode()
        yield stamp, f'{{"id":"{query.id}","deadline_at":{query.asked_at + query.deadline_ms},{common}'


def spell_batch(origin: int, router: str, rows: Sequence[str]) -> bytes:
    """One `AssignmentBatch` of spelled rows."""
    return f'{{"origin":{origin},"router":{_encode(router).decode()},"rows":[{",".join(rows)}]}}'.encode()


class Seen(msgspec.Struct, frozen=True, gc=False):
    """`schemas.seen_ids.SeenIds`."""

    origin: int
    seen_at: int
    ids: list[str]


def encode_seen(seen: Seen) -> bytes:
    return _encode(seen)
