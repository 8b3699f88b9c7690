from __future__ import annotations

import pytest

from twinloop.bus.records import Outgoing, Record, TopicPartition


def test_the_last_header_of_a_name_wins() -> None:
    record = Record("t", 2, 7, None, b"v", (("a", b"1"), ("b", b""), ("a", b"2")), 0)
    assert record.header("a") == b"2"
    assert record.header("b") == b""
    assert record.header("c") is None
    assert record.source == TopicPartition("t", 2)


def test_records_cannot_be_changed() -> None:
    record = Record("t", 2, 7, None, b"v", (), 0)
    with pytest.raises(AttributeError):
        record.offset = 8  # type: ignore[misc]


def test_size_counts_key_value_and_headers() -> None:
    assert Outgoing("t", None).size == 0
    assert Outgoing("t", b"12345", key=b"123", headers=(("ab", b"cd"), ("e", b""))).size == 13
