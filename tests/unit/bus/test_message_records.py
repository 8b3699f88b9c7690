from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, Message

from twinloop.bus.message_records import UNREADABLE_HEADERS, to_records


def refuse(message: Any) -> None:
    raise AssertionError(message)


def message(offset: int, **more: Any) -> Message:
    return Message(topic="t", partition=1, offset=offset, timestamp=(1, 123), **more)


def test_bytes_pass_as_they_are() -> None:
    found = to_records(
        [message(7, key=b"k", value=b"\xff", headers=[("a", b"1"), ("a", b"2")])], on_error=refuse
    )[0]
    assert (found.topic, found.partition, found.offset, found.timestamp_ms) == ("t", 1, 7, 123)
    assert (found.key, found.value, found.headers) == (b"k", b"\xff", (("a", b"1"), ("a", b"2")))


def test_absent_key_value_and_headers_are_told_apart_from_empty_ones() -> None:
    absent, empty = to_records([message(1), message(2, key=b"", value=b"")], on_error=refuse)
    assert (absent.key, absent.value, absent.headers) == (None, None, ())
    assert (empty.key, empty.value) == (b"", b"")


def test_a_header_without_a_value_is_an_empty_one() -> None:
    found = to_records([message(1, headers=[("a", None), ("b", b"x")])], on_error=refuse)[0]
    assert found.headers == (("a", b""), ("b", b"x"))


def test_errors_go_to_the_callback_and_records_keep_their_order() -> None:
    errors: list[Any] = []
    bad = Message(topic="t", partition=1, error=KafkaError(KafkaError._PARTITION_EOF))
    found = to_records([message(1), bad, message(2)], on_error=errors.append)
    assert [record.offset for record in found] == [1, 2]
    assert errors == [bad]


class Broken:
    """What a message with header names that are not UTF-8 does."""

    def __init__(self) -> None:
        self._good = message(3, value=b"v")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._good, name)

    def headers(self) -> Any:
        raise SystemError("returned a result with an exception set")


def test_header_names_that_are_no_text_mark_the_record_instead_of_stopping_the_worker() -> None:
    found = to_records([Broken()], on_error=refuse)[0]
    assert found.headers == ((UNREADABLE_HEADERS, b"1"),)
    assert found.value == b"v"
