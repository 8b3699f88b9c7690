"""A record nobody can process, kept whole with the reason and the place it came from."""

from __future__ import annotations

from twinloop.bus.records import Outgoing, Record
from twinloop.bus.settings import DEAD_LETTER_MAX_BYTES

_REASON_LIMIT = 2000
"""Characters of the error text kept, so that a long reason cannot push a letter over its size limit."""


def dead_letter(record: Record, *, topic: str, error: BaseException, service: str, at_ms: int) -> Outgoing:
    """The dead letter of `record`: original bytes, key and headers unchanged, plus the `tl-*` headers.

    Adds `tl-error`, `tl-error-kind`, `tl-origin-topic`, `tl-origin-partition`, `tl-origin-offset`, `tl-service` and
    `tl-at`.
    """
    history = (
        ("tl-error", str(error)[:_REASON_LIMIT].encode("utf-8", "replace")),
        ("tl-error-kind", type(error).__name__.encode()),
        ("tl-origin-topic", record.topic.encode()),
        ("tl-origin-partition", str(record.partition).encode()),
        ("tl-origin-offset", str(record.offset).encode()),
        ("tl-service", service.encode()),
        ("tl-at", str(at_ms).encode()),
    )
    return Outgoing(
        topic=topic,
        value=record.value,
        key=record.key,
        headers=record.headers + history,
        max_bytes=DEAD_LETTER_MAX_BYTES,
    )
