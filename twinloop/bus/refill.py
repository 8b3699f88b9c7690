"""Records put back into empty partitions at the offsets they had.

Others remember offsets: a gatekeeper ignores orders and proposals at or below the last one it took, its decisions name
the offset they were made at, a dataset's evidence names its records. So the offsets that no record shows (transaction
markers, aborted or deleted records) are taken up again: one by the marker of a committed transaction, more by an
aborted one, those before the first record by records that are deleted at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType

from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.settings import DEAD_LETTER_MAX_BYTES, KafkaSettings
from twinloop.bus.transactions import CommitUnknown, TransactionalProducer
from twinloop.errors import Transient

_FLUSH_S = 60.0
_MARKER_S = 30.0
_PAUSE_S = 0.001
_FLUSH_RECORDS = 50_000
_HEADROOM_BYTES = 64 * 1024
_FILLER_KEY = b"filler"
"""A compacted topic takes no record without a key."""


class LogRefill:
    """Fills partitions that were never written; one thread only, and nobody else may write to them meanwhile."""

    def __init__(self, settings: KafkaSettings, *, transactional_id: str) -> None:
        self._admin = KafkaAdmin(settings)
        self._plain = IdempotentProducer(settings)
        self._transactions = TransactionalProducer(settings, transactional_id)
        self._unflushed = 0

    def fill(self, source: TopicPartition, records: Iterable[Record], *, end: int) -> int:
        """Write `records`, sorted by offset, so that each gets its own and the partition ends at `end`; their number.

        Raises Transient where Kafka does not answer: the partition is then half filled and of no use.
        """
        held: Record | None = None
        count = 0
        for record in records:
            if held is None:
                self._begin_at(source, record.offset)
            else:
                self._put(held, source, gap=record.offset - held.offset - 1)
            held = record
            count += 1
        if held is None:
            self._begin_at(source, end)
        else:
            self._put(held, source, gap=end - held.offset - 1)
        self._flush()
        return count

    def close(self) -> None:
        """Let go of the connections."""
        self._transactions.close()
        self._plain.close()

    def __enter__(self) -> LogRefill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # What the error left in the queues is of no use, and waiting for it would hide the error.
            self._transactions.close()

    def _begin_at(self, source: TopicPartition, offset: int) -> None:
        if offset == 0:
            return
        for _ in range(offset):
            self._send_plain(_filler(source))
        self._flush()
        self._admin.delete_before(source, offset)

    def _put(self, record: Record, source: TopicPartition, *, gap: int) -> None:
        """Write one record and take up the `gap` offsets after it."""
        if gap == 1:
            self._flush()
            self._transactions.send(_copy(record, source))
            self._commit()
            self._wait_for_marker(source, record.offset + 2)
            return
        self._send_plain(_copy(record, source))
        if gap:
            self._flush()
            self._transactions.send_all(_filler(source) for _ in range(gap - 1))
            self._transactions.flush(_FLUSH_S)
            self._transactions.abort()
            self._wait_for_marker(source, record.offset + 1 + gap)

    def _wait_for_marker(self, source: TopicPartition, end: int) -> None:
        """A transaction's end is confirmed before its marker stands in the log: another record could be faster."""
        deadline = time.monotonic() + _MARKER_S
        while self._admin.end_of(source) < end:
            if time.monotonic() > deadline:
                raise Transient(
                    f"{source.topic}[{source.partition}] did not reach offset {end} within {_MARKER_S:g} s"
                )
            time.sleep(_PAUSE_S)

    def _commit(self) -> None:
        try:
            self._transactions.commit([], None)
        except CommitUnknown as error:
            raise Transient("Kafka neither confirmed nor refused a transaction of the restore") from error

    def _send_plain(self, outgoing: Outgoing) -> None:
        self._plain.send(outgoing)
        self._unflushed += 1
        if self._unflushed >= _FLUSH_RECORDS:
            self._flush()

    def _flush(self) -> None:
        if self._unflushed:
            self._plain.flush(_FLUSH_S)
            self._unflushed = 0


def _copy(record: Record, source: TopicPartition) -> Outgoing:
    return Outgoing(
        topic=source.topic,
        value=record.value,
        key=record.key,
        headers=record.headers,
        partition=source.partition,
        # It was in a log once: the topic's own limit is the one that counts.
        max_bytes=DEAD_LETTER_MAX_BYTES + _HEADROOM_BYTES,
        timestamp_ms=record.timestamp_ms,
    )


def _filler(source: TopicPartition) -> Outgoing:
    return Outgoing(source.topic, b"", _FILLER_KEY, partition=source.partition)
