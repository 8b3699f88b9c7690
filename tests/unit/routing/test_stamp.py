from __future__ import annotations

import pytest

from schemas import headers as names
from tests.unit.routing.states import A, canary, state
from twinloop.errors import InvalidEvent
from twinloop.routing.assignment import assign
from twinloop.routing.stamp import foreign_headers, read_stamp, stamp_of

STAMP = stamp_of(
    assign(state(3, canary=canary()), "alice"), domain="med", purpose="user", origin=2, assigned_at=99
)


def test_a_stamp_comes_back_from_its_headers() -> None:
    assert read_stamp((("ce_id", b"q"), *STAMP.headers())) == STAMP


def test_forwarding_keeps_the_first_time_and_counts_the_hop() -> None:
    forwarded = STAMP.forwarded(assign(state(9), "alice"), domain="law", unconfirmed=True)
    assert (forwarded.assigned_at, forwarded.origin, forwarded.purpose) == (99, 2, "user")
    assert (forwarded.hops, forwarded.epoch, forwarded.domain, forwarded.release) == (1, 9, "law", A)
    assert read_stamp(forwarded.headers()).unconfirmed


@pytest.mark.parametrize("name", [name for name, _ in STAMP.headers() if name != names.UNCONFIRMED])
def test_a_missing_header_is_named(name: str) -> None:
    with pytest.raises(InvalidEvent, match=name):
        read_stamp(pair for pair in STAMP.headers() if pair[0] != name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (names.SLOT, b"red"),
        (names.ARM, b""),
        (names.DOMAIN, b"LAW"),
        (names.PURPOSE, b"\xff"),
        (names.EPOCH, b"-1"),
        (names.HOPS, "²".encode()),
        (names.ORIGIN, b"9" * 19),
        (names.RELEASE, b"A" * 64),
        (names.RELEASE, b"a" * 63),
        (names.UNIT, b"g" * 16),
    ],
)
def test_a_wrong_header_is_named(name: str, value: bytes) -> None:
    with pytest.raises(InvalidEvent, match=name):
        read_stamp([*(pair for pair in STAMP.headers() if pair[0] != name), (name, value)])


def test_a_producer_s_forged_headers_are_left_behind() -> None:
    assert foreign_headers((("tl-slot", b"green"), ("ce_id", b"1"))) == (("ce_id", b"1"),)
