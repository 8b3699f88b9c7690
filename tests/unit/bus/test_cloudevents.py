from __future__ import annotations

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from twinloop.bus.cloudevents import (
    child_traceparent,
    event_headers,
    new_traceparent,
    read_event_headers,
    valid_traceparent,
)
from twinloop.errors import InvalidEvent

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_reader_that_knows_cloudevents_understands_our_headers() -> None:
    headers = event_headers(
        id="q-1",
        type="twinloop.query.v1",
        source="/router/0",
        time="2026-11-23T18:00:00Z",
        dataschema="schemas/query.v1.json",
        traceparent=PARENT,
    )
    event = from_binary_event(KafkaMessage(headers=dict(headers), key=None, value=b'{"text": "hi"}'))
    assert event.get_id() == "q-1"
    assert event.get_type() == "twinloop.query.v1"
    assert event.get_source() == "/router/0"
    assert event.get_specversion() == "1.0"
    assert event.get_dataschema() == "schemas/query.v1.json"
    assert event.get_datacontenttype() == "application/json"
    time = event.get_time()
    assert time is not None
    assert time.isoformat() == "2026-11-23T18:00:00+00:00"
    assert event.get_data() == {"text": "hi"}


def test_we_understand_headers_of_a_writer_that_knows_cloudevents() -> None:
    attributes = {
        "id": "x",
        "type": "t",
        "source": "/s",
        "specversion": "1.0",
        "datacontenttype": "application/json",
    }
    message = to_binary_event(CloudEvent(attributes=attributes, data={"a": 1}))
    found = read_event_headers(message.headers.items())
    assert (found.id, found.type, found.source, found.content_type) == ("x", "t", "/s", "application/json")
    assert found.traceparent is None


def test_written_headers_read_back() -> None:
    headers = event_headers(id="é", type="t", source="s", traceparent=PARENT)
    found = read_event_headers(headers)
    assert (found.id, found.time, found.dataschema, found.traceparent) == ("é", None, None, PARENT)


@pytest.mark.parametrize("missing", ["ce_id", "ce_type", "ce_source", "ce_specversion"])
def test_a_missing_or_empty_attribute_is_named(missing: str) -> None:
    headers = dict(event_headers(id="1", type="t", source="s"))
    del headers[missing]
    with pytest.raises(InvalidEvent, match=missing):
        read_event_headers(headers.items())
    with pytest.raises(InvalidEvent, match=missing):
        read_event_headers({**headers, missing: b""}.items())


def test_bytes_that_are_not_text_and_other_versions_are_refused() -> None:
    headers = dict(event_headers(id="1", type="t", source="s"))
    with pytest.raises(InvalidEvent, match="UTF-8"):
        read_event_headers({**headers, "ce_id": b"\xff"}.items())
    with pytest.raises(InvalidEvent, match=r"1\.0"):
        read_event_headers({**headers, "ce_specversion": b"2.0"}.items())


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        PARENT.upper(),
        PARENT + b"-extra",
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(value: bytes | None) -> None:
    assert valid_traceparent(value) is None
    child = child_traceparent(value, bytes(range(1, 25)))
    assert child == new_traceparent(bytes(range(1, 25)))


@given(st.binary(min_size=24, max_size=24).filter(lambda b: any(b[:16]) and any(b[16:])))
def test_a_child_keeps_trace_and_flags_and_has_its_own_span(random_bytes: bytes) -> None:
    child = child_traceparent(PARENT, random_bytes)
    assert valid_traceparent(child) == child
    assert child[:35] == PARENT[:35]
    assert child[36:52] == random_bytes[16:].hex().encode()
    assert child[52:] == b"-01"
    assert valid_traceparent(new_traceparent(random_bytes)) is not None


def test_a_traceparent_needs_exactly_24_random_bytes() -> None:
    with pytest.raises(ValueError, match="24"):
        new_traceparent(b"short")
