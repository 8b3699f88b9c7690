"""The router's parser: refuses exactly what `schemas.queries.Query` refuses, at a fifth of the time.

msgspec accepts a query or passes; whatever it does not accept is asked of the pydantic model, whose word is final.
So an unusual spelling costs more time and never another verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.queries import Query
from services.router.core.query import ParsedQuery, are_well_named
from services.router.header_shapes import HeaderShapes
from twinloop.bus.records import Record
from twinloop.codec import decode
from twinloop.errors import InvalidEvent
from twinloop.routing.stamp import OWN_PREFIX

STAMP_ROOM = 1024
"""Bytes kept free in a record for the stamp's headers."""

_TYPE = Query.type.encode()
_OWN = OWN_PREFIX.encode()
_decode = msgspec.json.Decoder(ParsedQuery).decode
_pack = msgspec.msgpack.Encoder().encode
_OF_TYPE = _pack(("ce_type", _TYPE))[1:]
"""A header of the right type inside a packed run, without the byte that says how long a pair is."""


class Intake(msgspec.Struct, frozen=True, gc=False):
    """A record of `queries` with the query in it; an arrival to `decide`."""

    origin: int
    query: ParsedQuery
    record: Record
    routed_size: int
    """At most this many bytes once it is stamped."""
    is_plain: bool
    """Its headers hold neither a trace nor anything of this system."""


class Parser:
    """Parses records, alone or a micro-batch at a time; remembers what header names look like."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._shapes = HeaderShapes()

    def parse_plain(self, records: Sequence[Record]) -> list[Intake] | None:
        """What `parse` says of each, where all are ordinary queries; None where one is not, or may not be.

        Ordinary: accepted by msgspec, well named, without a trace or headers of this system, and together so small
        that none can be over the limit. What the batch has in common is asked once, in half the time.
        """
        try:
            queries = [_decode(record.value) for record in records]  # type: ignore[arg-type]
        except (TypeError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        # All headers as one run of bytes are searched faster than names are compared; a value that looks like such
        # a name only costs the batch the slower way.
        headers = _pack([record.headers for record in records])
        if (
            b"traceparent" in headers
            or _OWN in headers
            or headers.count(b"ce_type") != headers.count(_OF_TYPE)
        ):
            return None
        size = (
            len(headers)
            + STAMP_ROOM
            + sum([len(record.key or b"") + len(record.value or b"") for record in records])
        )
        if size > self._max_bytes or not are_well_named(queries):
            return None
        return [
            Intake(record.partition, query, record, size, True)
            for record, query in zip(records, queries, strict=True)
        ]

    def parse(self, record: Record) -> Intake:
        """The query in a record.

        Raises InvalidEvent naming topic, partition, offset and reason, also where the stamp would make the record
        larger than `max_bytes`.
        """
        value = record.value
        names, contents = zip(*record.headers, strict=True) if record.headers else ((), ())
        shape = self._shapes.of(names)
        size = len(value or b"") + len(record.key or b"") + STAMP_ROOM
        size += shape.names_size + len(b"".join(contents))
        if value is None or (shape.type_at is not None and contents[shape.type_at] != _TYPE):
            query = _by_model(record)
        else:
            self._refuse_oversize(record, size)
            try:
                query = _decode(value)
                if not query.is_well_named:
                    query = _by_model(record)
            except (msgspec.DecodeError, UnicodeDecodeError):
                query = _by_model(record)
        return Intake(record.partition, query, record, size, shape.is_plain)

    def _refuse_oversize(self, record: Record, size: int) -> None:
        if size > self._max_bytes:
            raise InvalidEvent(
                f"{record.topic}[{record.partition}]@{record.offset}: {size} bytes with the router's headers, "
                f"at most {self._max_bytes} can be forwarded"
            )


def _by_model(record: Record) -> ParsedQuery:
    return ParsedQuery(**decode(record, Query).model_dump())
