"""The router's parser: refuses exactly what `schemas.queries.Query` refuses, at a fifth of the time.

msgspec accepts a query or passes; whatever it does not accept is asked of the pydantic model, whose word is final.
So an unusual spelling costs more time and never another verdict.
"""

from __future__ import annotations

import msgspec

from schemas.queries import Query
from services.router.core.query import ParsedQuery
from twinloop.bus.records import Record
from twinloop.codec import decode
from twinloop.errors import InvalidEvent

STAMP_ROOM = 1024
"""Bytes kept free in a record for the stamp's headers."""

_TYPE = Query.type.encode()
_decoder = msgspec.json.Decoder(ParsedQuery)


def parse_query(record: Record, *, max_bytes: int) -> ParsedQuery:
    """The query in a record of `queries`.

    Raises InvalidEvent naming topic, partition, offset and reason, also where the stamp would make the record larger
    than `max_bytes`.
    """
    value = record.value
    if value is None or not _is_query(record):
        return _by_model(record)
    _refuse_oversize(record, max_bytes)
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _by_model(record)


def _is_query(record: Record) -> bool:
    declared = record.header("ce_type")
    return declared is None or declared == _TYPE


def _refuse_oversize(record: Record, max_bytes: int) -> None:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    size = len(record.value or b"") + len(record.key or b"") + headers + STAMP_ROOM
    if size > max_bytes:
        raise InvalidEvent(
            f"{record.topic}[{record.partition}]@{record.offset}: {size} bytes with the router's headers, "
            f"at most {max_bytes} can be forwarded"
        )


def _by_model(record: Record) -> ParsedQuery:
    return ParsedQuery(**decode(record, Query).model_dump())
