"""The fast parser and the pydantic model give every byte string the same verdict and the same values."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.queries import Query
from services.router.core.query import ParsedQuery
from services.router.parsing import STAMP_ROOM, Parser, _decode
from tests.unit.router.records import record
from twinloop.bus.records import Record
from twinloop.errors import InvalidEvent

GOOD: dict[str, Any] = {"id": "q-1", "text": "What is it?", "asked_at": 1_700_000_000_000}
WHOLE = {
    **GOOD,
    "subject": "s",
    "domain": "law",
    "deadline_ms": 5,
    "priority": "low",
    "client": "c",
    "canary_opt_out": True,
}
VALUES = [
    None, True, False, 0, 1, -1, 1.0, 1.5, 1e3, "", "x", "1", "é", "😀", "q\n", "a" * 128, "a" * 129, "a" * 8000,
    "a" * 8001, "law", "LAW", "low", "high", [], {}, 2**63, 2**70, 600_000, 600_001, 4_102_444_800_000,
    4_102_444_800_001, "a@b", "@a", " a", "a b", "𝔘",
]  # fmt: skip
ODD = [
    b"", b"null", b"[]", b"{}", b'{"id":"a","id":"b","text":"x","asked_at":1}',
    b'\xef\xbb\xbf{"id":"a","text":"x","asked_at":1}', b'{"id":"a","text":"\\ud800","asked_at":1}',
    b'{"id":"a","text":"\xff","asked_at":1}', b'{"id":"a","text":"\xed\xa0\x80","asked_at":1}',
    b'{"id":"a","text":"a\nb","asked_at":1}', b'{"id":"a","text":"a\\u0000b","asked_at":1}',
    b'{"id":"a","text":"a","asked_at":01}', b'{"id":"a","text":"a","asked_at":1,}',
    b'{"id":"a","text":"a","asked_at":1} x', b'{"id":"a","text":"a","asked_at":1}\n ',
    b'{"id":"a","text":"a","asked_at":-0}', b'{"id":"a","text":"a","asked_at":NaN}',
    b'{"id":"a\\n","text":"a","asked_at":1}', b'{"id":"a","text":"a","asked_at":1,"client":"x\\n"}',
    b'{"id":"a","text":"a","asked_at":1,"surprise":NaN}',
]  # fmt: skip


def by_model(value: bytes) -> dict[str, Any] | None:
    try:
        return Query.model_validate_json(value).model_dump()
    except ValidationError:
        return None


def by_router(value: bytes) -> dict[str, Any] | None:
    try:
        found = Parser(max_bytes=1_000_000).parse(record(value)).query
    except InvalidEvent:
        return None
    return {name: getattr(found, name) for name in Query.model_fields}


def vectors() -> list[bytes]:
    fields = [*Query.model_fields, "surprise"]
    single = [json.dumps({**GOOD, field: value}).encode() for field in fields for value in VALUES]
    missing = [json.dumps({k: v for k, v in GOOD.items() if k != field}).encode() for field in GOOD]
    return [*single, *missing, *ODD, json.dumps(WHOLE).encode()]


def mutations(count: int) -> list[bytes]:
    chance = random.Random(42)
    whole = json.dumps(WHOLE).encode()
    alphabet = b'"\\{}[]:,0123456789truefalsn \n\t\xff\xed\xa0'
    found = []
    for _ in range(count):
        bent = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(bent))
            kind = chance.random()
            if kind < 0.4:
                bent[at] = chance.randrange(256)
            elif kind < 0.6:
                del bent[at]
            else:
                bent.insert(at, chance.choice(alphabet))
        found.append(bytes(bent))
    return found


def test_the_router_refuses_and_reads_exactly_what_the_schema_does() -> None:
    for value in [*vectors(), *mutations(5_000)]:
        assert by_router(value) == by_model(value), value[:200]


def test_a_batch_is_read_as_its_records_are_one_by_one() -> None:
    parser, ordinary = Parser(max_bytes=1_000_000), record(GOOD, headers=(("ce_type", b"twinloop.query.v1"),))
    alone = parser.parse(ordinary)
    taken = 0
    for value in [*vectors(), *mutations(2_000)]:
        found = parser.parse_plain([ordinary, record(value)])
        if found is not None:
            taken += 1
            assert [intake.query for intake in found] == [alone.query, parser.parse(record(value)).query]
            assert all(intake.is_plain for intake in found)
            assert min(intake.routed_size for intake in found) >= alone.routed_size
    assert taken > 50
    whole = record(json.dumps(WHOLE).encode())
    assert parser.parse_plain([ordinary, whole]) is not None


@pytest.mark.parametrize(
    "odd",
    [
        record(None),
        record(GOOD, headers=(("ce_type", b"twinloop.query.v2"),)),
        record(GOOD, headers=(("traceparent", b"x"),)),
        record(GOOD, headers=(("tl-stamp", b"forged"),)),
        record({**GOOD, "text": "x" * 7000}),
        record({**GOOD, "subject": "a\nb"}),
        record({**GOOD, "subject": ""}),
    ],
)
def test_a_batch_with_one_odd_record_is_read_one_by_one(odd: Record) -> None:
    parser = Parser(max_bytes=7000)
    assert parser.parse_plain([record(GOOD), record(WHOLE)]) is not None
    assert parser.parse_plain([record(GOOD), odd, record(WHOLE)]) is None


def test_ordinary_queries_take_the_fast_way() -> None:
    found = _decode(json.dumps(WHOLE).encode())
    assert found == ParsedQuery(**WHOLE)
    assert found.is_well_named


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (None, (), "no value"),
        (b"{", (), "not a twinloop.query.v1"),
        (GOOD, (("ce_type", b"twinloop.query.v2"),), "ce_type"),
        ({**GOOD, "domain": "astrology"}, (), "domain"),
    ],
)
def test_a_refusal_names_place_and_reason(
    value: bytes | dict[str, Any] | None, headers: tuple[tuple[str, bytes], ...], reason: str
) -> None:
    with pytest.raises(InvalidEvent, match=r"queries\[3\]@7") as caught:
        Parser(max_bytes=10_000).parse(record(value, headers=headers, partition=3, offset=7))
    assert reason in str(caught.value)


def test_a_refusal_never_repeats_what_a_user_wrote() -> None:
    with pytest.raises(InvalidEvent) as caught:
        Parser(max_bytes=10_000).parse(record({**GOOD, "priority": "my secret"}))
    assert "secret" not in str(caught.value)


def test_a_record_without_room_for_the_stamp_is_refused() -> None:
    value = json.dumps(GOOD).encode()
    own = (("own", b"1234"),)
    size = len(value) + len(b"key") + len(b"own1234") + STAMP_ROOM
    assert Parser(max_bytes=size).parse(record(value, headers=own)).routed_size == size
    with pytest.raises(InvalidEvent, match="can be forwarded"):
        Parser(max_bytes=size - 1).parse(record(value, headers=own))


def test_the_last_declared_type_counts_and_plain_headers_are_told_from_others() -> None:
    value = json.dumps(GOOD).encode()
    parser = Parser(max_bytes=10_000)
    good, bad = ("ce_type", b"twinloop.query.v1"), ("ce_type", b"twinloop.query.v9")
    for _ in range(2):
        assert parser.parse(record(value, headers=(bad, good))).is_plain
        with pytest.raises(InvalidEvent, match="ce_type"):
            parser.parse(record(value, headers=(good, bad)))
        assert not parser.parse(record(value, headers=(good, ("tl-stamp", b"forged")))).is_plain
        assert not parser.parse(record(value, headers=(("traceparent", b"x"),))).is_plain
