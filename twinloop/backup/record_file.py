"""Records of one partition as a file: one JSON object a line, text where bytes are text, so that people can read it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
from pydantic import JsonValue

from twinloop.bus.records import Record, TopicPartition
from twinloop.errors import ArtifactError


def line_of(record: Record) -> bytes:
    """The record's line, without the end of line; equal records give equal bytes."""
    document: dict[str, JsonValue] = {
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": _plain(record.key),
        "headers": [[name, _plain(value)] for name, value in record.headers],
        "value": _plain(record.value),
    }
    return orjson.dumps(document)


def record_in(line: bytes, source: TopicPartition) -> Record:
    """The inverse of `line_of`; raises ArtifactError for a line that holds no record."""
    try:
        document = orjson.loads(line)
        return Record(
            topic=source.topic,
            partition=source.partition,
            offset=int(document["offset"]),
            key=_raw(document["key"]),
            value=_raw(document["value"]),
            headers=tuple((str(name), _raw(value) or b"") for name, value in document["headers"]),
            timestamp_ms=int(document["timestamp_ms"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{source.topic}[{source.partition}]: a line of the back-up holds no record: {error}"
        ) from error


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write a new file and flush it to the disk; the number of records. Raises OSError."""
    count = 0
    with path.open("xb") as file:
        for record in records:
            file.write(line_of(record) + b"\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def read_records(path: Path, source: TopicPartition) -> Iterator[Record]:
    """The records of a file as records of `source`; raises ArtifactError for a line that holds none, OSError."""
    with path.open("rb") as file:
        for line in file:
            yield record_in(line.rstrip(b"\n"), source)


def digest_of_records(records: Iterable[Record]) -> str:
    """SHA-256 of the file `write_records` would make of them."""
    seen = hashlib.sha256()
    for record in records:
        seen.update(line_of(record) + b"\n")
    return seen.hexdigest()


def _plain(data: bytes | None) -> JsonValue:
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _raw(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {"base64"}:
        return base64.b64decode(value["base64"], validate=True)
    raise ValueError("neither text nor base64")
