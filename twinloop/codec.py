"""Events to records and back: JSON in the value, CloudEvents attributes in the headers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TypeVar

from pydantic import ValidationError

from schemas.event import Event
from twinloop.bus.cloudevents import event_headers
from twinloop.bus.records import Headers, Record
from twinloop.errors import InvalidEvent

E = TypeVar("E", bound=Event)


def encode(
    event: Event,
    *,
    source: str,
    event_id: str,
    at_ms: int,
    traceparent: bytes | None = None,
    extra: Iterable[tuple[str, bytes]] = (),
) -> tuple[bytes, Headers]:
    """The value and headers of one event; `source` is who says it, `event_id` is unique per source."""
    headers = event_headers(
        id=event_id, type=event.type, source=source, time=_rfc3339(at_ms), traceparent=traceparent
    )
    return event.model_dump_json().encode(), (*headers, *extra)


def decode(record: Record, event_class: type[E]) -> E:
    """Parse and validate a record's value.

    Raises InvalidEvent, naming topic, partition and offset, for another type or version, for bytes that are no JSON
    and for fields that do not fit. A record without CloudEvents headers is taken for `event_class`.
    """
    where = f"{record.topic}[{record.partition}]@{record.offset}"
    declared = record.header("ce_type")
    if declared is not None and declared != event_class.type.encode():
        raise InvalidEvent(f"{where}: ce_type is {declared!r}, expected {event_class.type!r}")
    if record.value is None:
        raise InvalidEvent(f"{where}: the record has no value")
    try:
        return event_class.model_validate_json(record.value)
    except ValidationError as error:
        raise InvalidEvent(f"{where}: not a {event_class.type}: {_reasons(error)}") from error


def _reasons(error: ValidationError) -> str:
    """Field and reason of each fault, without the input: it may hold what a user wrote."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in faults[:5])


def _rfc3339(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
