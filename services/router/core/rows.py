"""Rows the router writes for each query, encoded a few times faster than by their pydantic models.

`schemas.assignments.AssignmentBatch` and `schemas.seen_ids.SeenIds` accept every value made here (tested).
"""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of `schemas.assignments.AssignmentRow`."""

    id: str
    unit: str
    bucket: int
    slot: str
    arm: str
    release: str
    epoch: int
    purpose: str
    domain: str
    assigned_at: int
    deadline_at: int
    hops: int
    unconfirmed: bool


class Batch(msgspec.Struct, frozen=True, gc=False):
    """`schemas.assignments.AssignmentBatch`."""

    origin: int
    router: str
    rows: list[Row]


class Seen(msgspec.Struct, frozen=True, gc=False):
    """`schemas.seen_ids.SeenIds`."""

    origin: int
    seen_at: int
    ids: list[str]


_encoder = msgspec.json.Encoder()


def encode_batch(batch: Batch) -> bytes:
    return _encoder.encode(batch)


def encode_seen(seen: Seen) -> bytes:
    return _encoder.encode(seen)
