"""A routed record as the worker sees it: the query, the stamp, and where it stands in the log."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from schemas.queries import Query
from twinloop.bus.cloudevents import valid_traceparent
from twinloop.bus.records import Record
from twinloop.errors import InvalidEvent
from twinloop.routing.stamp import Stamp, read_stamp


@dataclass(frozen=True)
class RoutedQuery:
    """One query of a micro-batch."""

    query: Query
    stamp: Stamp
    record: Record

    @property
    def deadline_at(self) -> int:
        return self.query.deadline_at

    @property
    def traceparent(self) -> bytes | None:
        return valid_traceparent(self.record.header("traceparent"))


def read_routed_query(record: Record) -> RoutedQuery:
    """Parse one record of a slot's topic; raises InvalidEvent naming its topic, partition and offset."""
    where = f"{record.topic}[{record.partition}]@{record.offset}"
    if record.value is None:
        raise InvalidEvent(f"{where}: the record has no value")
    try:
        return RoutedQuery(Query.model_validate_json(record.value), read_stamp(record.headers), record)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        reasons = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in faults
        )
        raise InvalidEvent(f"{where}: not a {Query.type}: {reasons}") from error
    except InvalidEvent as error:
        raise InvalidEvent(f"{where}: {error}") from error
