"""CloudEvents 1.0 in Kafka's binary mode, and the W3C trace context that travels beside them.

Sources: CloudEvents Kafka Protocol Binding 1.0.2, section 3.2; W3C Trace Context, section 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from twinloop.bus.records import Headers
from twinloop.errors import InvalidEvent

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16
_PAIR = tuple[str, bytes]
_SPEC: _PAIR = ("ce_specversion", b"1.0")


class EventHeaders(msgspec.Struct, frozen=True):
    """The CloudEvents attributes of one record; times are RFC 3339 text, as they travel."""

    id: str
    type: str
    source: str
    time: str | None = None
    dataschema: str | None = None
    content_type: str = "application/json"
    traceparent: bytes | None = None


def event_headers(
    *,
    id: str,
    type: str,
    source: str,
    time: str | None = None,
    dataschema: str | None = None,
    content_type: str = "application/json",
    traceparent: bytes | None = None,
) -> Headers:
    """The Kafka headers of one CloudEvent in binary mode; `time` is RFC 3339 text."""
    headers: list[_PAIR] = [
        _SPEC,
        ("ce_id", id.encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("content-type", content_type.encode()),
    ]
    if time is not None:
        headers.append(("ce_time", time.encode()))
    if dataschema is not None:
        headers.append(("ce_dataschema", dataschema.encode()))
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return tuple(headers)


def read_event_headers(headers: Iterable[tuple[str, bytes]]) -> EventHeaders:
    """Parses binary-mode headers; raises InvalidEvent where a required attribute is missing, empty or not UTF-8."""
    found = dict(headers)
    try:
        text = {name: found[name].decode() for name in _TEXT_NAMES if found.get(name)}
    except UnicodeDecodeError as cause:
        raise InvalidEvent(f"a CloudEvents header is not UTF-8: {cause}") from cause
    missing = [name for name in ("ce_specversion", "ce_id", "ce_type", "ce_source") if name not in text]
    if missing:
        raise InvalidEvent(f"CloudEvents headers are missing or empty: {', '.join(missing)}")
    if text["ce_specversion"] != "1.0":
        raise InvalidEvent(f"ce_specversion is {text['ce_specversion']!r}; only 1.0 is understood")
    return EventHeaders(
        id=text["ce_id"],
        type=text["ce_type"],
        source=text["ce_source"],
        time=text.get("ce_time"),
        dataschema=text.get("ce_dataschema"),
        content_type=text.get("content-type", "application/json"),
        traceparent=valid_traceparent(found.get("traceparent")),
    )


_TEXT_NAMES = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_dataschema", "content-type")


def valid_traceparent(value: bytes | None) -> bytes | None:
    """`value` where it is a version 00 traceparent with a trace and a span, else None (a bad one is ignored)."""
    match = _TRACEPARENT.fullmatch(value) if value else None
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN:
        return None
    return value


def new_traceparent(random_bytes: bytes, *, is_sampled: bool = True) -> bytes:
    """A root traceparent made of 24 random bytes: 16 for the trace, 8 for the span."""
    if len(random_bytes) != 24:
        raise ValueError(f"a traceparent is made of 24 random bytes, not {len(random_bytes)}")
    hexed = random_bytes.hex().encode()
    return b"00-" + hexed[:32] + b"-" + hexed[32:] + (b"-01" if is_sampled else b"-00")


def new_traceparents(random_bytes: bytes) -> list[bytes]:
    """`new_traceparent` of each 24 of the random bytes."""
    hexed = random_bytes.hex().encode()
    return [
        b"00-%b-%b-01" % (hexed[at : at + 32], hexed[at + 32 : at + 48]) for at in range(0, len(hexed), 48)
    ]


def child_traceparent(parent: bytes | None, random_bytes: bytes) -> bytes:
    """A traceparent in `parent`'s trace with a new span; a new root where `parent` is absent or malformed.

    `random_bytes` are 24 bytes; a child uses the last 8 of them.
    """
    if valid_traceparent(parent) is None:
        return new_traceparent(random_bytes)
    assert parent is not None
    return parent[:36] + random_bytes[16:24].hex().encode() + parent[52:]
