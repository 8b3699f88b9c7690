from __future__ import annotations

from twinloop.bus.dead_letter import dead_letter
from twinloop.bus.producer import refuse_oversize
from twinloop.bus.records import Outgoing, Record
from twinloop.errors import InvalidEvent


def letter_of(value: bytes | None, reason: str = "no field id") -> Outgoing:
    record = Record("twinloop.queries", 3, 41, b"\xff", value, (("ce_id", b"1"),), 5)
    return dead_letter(
        record,
        topic="twinloop.dead-letters",
        error=InvalidEvent(reason),
        service="router",
        at_ms=1_700_000_000_000,
    )


def test_bytes_key_and_headers_are_kept_and_the_place_is_named() -> None:
    letter = letter_of(b"\x00not json")
    assert (letter.topic, letter.value, letter.key) == ("twinloop.dead-letters", b"\x00not json", b"\xff")
    assert letter.headers == (
        ("ce_id", b"1"),
        ("tl-error", b"no field id"),
        ("tl-error-kind", b"InvalidEvent"),
        ("tl-origin-topic", b"twinloop.queries"),
        ("tl-origin-partition", b"3"),
        ("tl-origin-offset", b"41"),
        ("tl-service", b"router"),
        ("tl-at", b"1700000000000"),
    )


def test_the_largest_record_still_fits_into_a_letter() -> None:
    letter = letter_of(b"x" * (1024 * 1024), reason="r" * 100_000)
    refuse_oversize(letter, 1024 * 1024)
    assert letter.value is not None
    assert len(letter.value) == 1024 * 1024


def test_a_tombstone_nobody_expected_stays_one() -> None:
    assert letter_of(None).value is None
