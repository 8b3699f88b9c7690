"""What a routed record says in its header: by which epoch it was sent where.

One header and not one a field: a header costs librdkafka and every reader about a third of a microsecond, and
twelve of them cost the router a fifth of its rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from schemas import headers as names
from schemas.event import Arm, Domain, Purpose, Slot
from twinloop.errors import InvalidEvent
from twinloop.routing.assignment import Assignment

Pair = tuple[str, bytes]

OWN_PREFIX = "tl-"
"""Headers of this system; a producer's own headers of that name are never forwarded."""

_Number = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
# \Z and not $: Python's $ also matches before a last line feed.
_Release = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Unit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class Stamp(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The decision a routed record carries; `assigned_at` is that of the first assignment."""

    slot: Slot
    arm: Arm
    release: _Release
    epoch: _Number
    domain: Domain
    purpose: Purpose
    origin: _Number
    assigned_at: _Number
    bucket: _Number
    unit: _Unit
    hops: _Number = 0
    unconfirmed: bool = False

    def headers(self) -> tuple[Pair, ...]:
        """The stamp as a record header: JSON of these fields."""
        return ((names.STAMP, _encode(self)),)

    def forwarded(self, assignment: Assignment, *, domain: Domain, unconfirmed: bool) -> Stamp:
        """The stamp of the same query sent on by a worker: a new place, one more hop, the first time."""
        return Stamp(
            slot=assignment.slot,
            arm=assignment.arm,
            release=assignment.release,
            epoch=assignment.epoch,
            domain=domain,
            purpose=self.purpose,
            origin=self.origin,
            assigned_at=self.assigned_at,
            bucket=assignment.bucket,
            unit=assignment.unit,
            hops=self.hops + 1,
            unconfirmed=unconfirmed,
        )


def stamp_of(
    assignment: Assignment,
    *,
    domain: Domain,
    purpose: Purpose,
    origin: int,
    assigned_at: int,
    unconfirmed: bool = False,
) -> Stamp:
    """The stamp of a first assignment."""
    return Stamp(
        slot=assignment.slot,
        arm=assignment.arm,
        release=assignment.release,
        epoch=assignment.epoch,
        domain=domain,
        purpose=purpose,
        origin=origin,
        assigned_at=assigned_at,
        bucket=assignment.bucket,
        unit=assignment.unit,
        unconfirmed=unconfirmed,
    )


def read_stamp(headers: Iterable[Pair]) -> Stamp:
    """The stamp in a routed record's headers; raises InvalidEvent naming the missing or wrong field."""
    value = dict(headers).get(names.STAMP)
    if value is None:
        raise InvalidEvent(
            f"the routed record lacks the header {names.STAMP}; it was not written by a router"
        )
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise InvalidEvent(f"the header {names.STAMP} does not fit: {cause}") from cause


def foreign_headers(headers: Iterable[Pair]) -> tuple[Pair, ...]:
    """The headers that are not this system's own: what a forwarded record keeps."""
    return tuple(pair for pair in headers if not pair[0].startswith(OWN_PREFIX))


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Stamp)
