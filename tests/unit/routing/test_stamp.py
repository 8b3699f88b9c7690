from __future__ import annotations

import json

import msgspec
import pytest

from schemas import headers as names
from tests.unit.routing.states import A, canary, state
from twinloop.errors import InvalidEvent
from twinloop.routing.assignment import assign
from twinloop.routing.stamp import Stamp, foreign_headers, read_stamp, stamp_of

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


def test_a_missing_header_is_named() -> None:
    with pytest.raises(InvalidEvent, match=names.STAMP):
        read_stamp((("ce_id", b"q"),))


@pytest.mark.parametrize("name", [*Stamp.__struct_fields__[:10], "surprise"])
def test_a_missing_or_unknown_field_is_named(name: str) -> None:
    fields = msgspec.to_builtins(STAMP)
    changed = {**fields, name: 1} if name == "surprise" else {k: v for k, v in fields.items() if k != name}
    with pytest.raises(InvalidEvent, match=name):
        read_stamp(((names.STAMP, json.dumps(changed).encode()),))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slot", "red"),
        ("arm", ""),
        ("domain", "LAW"),
        ("purpose", None),
        ("epoch", -1),
        ("hops", "2"),
        ("origin", 10**18),
        ("release", "A" * 64),
        ("release", "a" * 63),
        ("release", "a" * 64 + "\n"),
        ("unit", "g" * 16),
        ("unconfirmed", 1),
    ],
)
def test_a_wrong_field_is_named(name: str, value: object) -> None:
    fields = {**msgspec.to_builtins(STAMP), name: value}
    with pytest.raises(InvalidEvent, match=name):
        read_stamp(((names.STAMP, json.dumps(fields).encode()),))


@pytest.mark.parametrize("value", [b"", b"{", b"null", b"\xff", b'{"slot":"\xff"}'])
def test_what_is_no_stamp_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidEvent, match=names.STAMP):
        read_stamp(((names.STAMP, value),))


def test_a_producer_s_forged_headers_are_left_behind() -> None:
    assert foreign_headers((("tl-stamp", b"{}"), ("ce_id", b"1"))) == (("ce_id", b"1"),)
