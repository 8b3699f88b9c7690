"""confluent-kafka's messages as Records; the hottest loop of the bus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Message

from twinloop.bus.records import Headers, Record

UNREADABLE_HEADERS = "tl-unreadable-headers"
"""Name of the only header of a record whose header names are not UTF-8."""


def to_records(messages: Iterable[Any], *, on_error: Callable[[Message], None]) -> list[Record]:
    """The records among `messages`, in order; `on_error` gets each message that is an error instead."""
    records: list[Record] = []
    append = records.append
    topic = ""
    for message in messages:
        if message.error() is not None:
            on_error(message)
            continue
        name = message.topic()
        if name != topic:
            topic = name
        headers: Headers = ()
        try:
            found = message.headers()
        except (SystemError, UnicodeError):
            headers = ((UNREADABLE_HEADERS, b"1"),)
        else:
            if found:
                headers = tuple(found)
                for _, value in found:
                    if value is None:
                        headers = tuple((key, item or b"") for key, item in found)
                        break
        append(
            Record(
                topic,
                message.partition(),
                message.offset(),
                message.key(),
                message.value(),
                headers,
                message.timestamp()[1],
            )
        )
    return records
