"""What a routed record says in its headers: by which epoch it was sent where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast, get_args

import msgspec

from schemas import headers as names
from schemas.event import Arm, Domain, Purpose, Slot
from twinloop.errors import InvalidEvent
from twinloop.routing.assignment import Assignment

Pair = tuple[str, bytes]

_SLOTS = frozenset(get_args(Slot))
_ARMS = frozenset(get_args(Arm))
_DOMAINS = frozenset(get_args(Domain))
_PURPOSES = frozenset(get_args(Purpose))
OWN_PREFIX = "tl-"
"""Headers of this system; a producer's own headers of that name are never forwarded."""


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """The decision a routed record carries; `assigned_at` is that of the first assignment."""

    slot: Slot
    arm: Arm
    release: str
    epoch: int
    domain: Domain
    purpose: Purpose
    origin: int
    assigned_at: int
    bucket: int
    unit: str
    hops: int = 0
    unconfirmed: bool = False

    def headers(self) -> tuple[Pair, ...]:
        """The stamp as record headers, in a fixed order."""
        return (
            (names.SLOT, self.slot.encode()),
            (names.ARM, self.arm.encode()),
            (names.RELEASE, self.release.encode()),
            (names.EPOCH, b"%d" % self.epoch),
            (names.DOMAIN, self.domain.encode()),
            (names.PURPOSE, self.purpose.encode()),
            (names.ORIGIN, b"%d" % self.origin),
            (names.ASSIGNED_AT, b"%d" % self.assigned_at),
            (names.BUCKET, b"%d" % self.bucket),
            (names.UNIT, self.unit.encode()),
            (names.HOPS, b"%d" % self.hops),
            (names.UNCONFIRMED, b"1" if self.unconfirmed else b"0"),
        )

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
    """The stamp in a routed record's headers; raises InvalidEvent naming the missing or wrong header."""
    found = dict(headers)
    return Stamp(
        slot=cast(Slot, _word(found, names.SLOT, _SLOTS)),
        arm=cast(Arm, _word(found, names.ARM, _ARMS)),
        release=_hexadecimal(found, names.RELEASE, 64),
        epoch=_number(found, names.EPOCH),
        domain=cast(Domain, _word(found, names.DOMAIN, _DOMAINS)),
        purpose=cast(Purpose, _word(found, names.PURPOSE, _PURPOSES)),
        origin=_number(found, names.ORIGIN),
        assigned_at=_number(found, names.ASSIGNED_AT),
        bucket=_number(found, names.BUCKET),
        unit=_hexadecimal(found, names.UNIT, 16),
        hops=_number(found, names.HOPS),
        unconfirmed=found.get(names.UNCONFIRMED, b"0") == b"1",
    )


def foreign_headers(headers: Iterable[Pair]) -> tuple[Pair, ...]:
    """The headers that are not this system's own: what a forwarded record keeps."""
    return tuple(pair for pair in headers if not pair[0].startswith(OWN_PREFIX))


def _text(found: dict[str, bytes], name: str) -> str:
    value = found.get(name)
    if value is None:
        raise InvalidEvent(f"the routed record lacks the header {name}; it was not written by a router")
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as cause:
        raise InvalidEvent(f"the header {name} is not ASCII") from cause


def _word(found: dict[str, bytes], name: str, allowed: frozenset[str]) -> str:
    value = _text(found, name)
    if value not in allowed:
        raise InvalidEvent(f"the header {name} is {value[:40]!r}; allowed are {', '.join(sorted(allowed))}")
    return value


def _number(found: dict[str, bytes], name: str) -> int:
    value = _text(found, name)
    if not value.isdigit() or len(value) > 18:
        raise InvalidEvent(f"the header {name} is {value[:40]!r}, not a whole number")
    return int(value)


def _hexadecimal(found: dict[str, bytes], name: str, length: int) -> str:
    value = _text(found, name)
    if len(value) != length or value.strip("0123456789abcdef"):
        raise InvalidEvent(f"the header {name} is not {length} lower-case hexadecimal digits")
    return value
