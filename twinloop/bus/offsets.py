"""What was polled and not yet committed, by partition: where a commit goes to and where an undo goes back to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from twinloop.bus.records import Record, TopicPartition


class OffsetLedger:
    """Two offsets per partition: the first uncommitted one polled, and the one after the last polled."""

    def __init__(self) -> None:
        self._first: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}

    def took(self, records: Sequence[Record]) -> None:
        """Notes records handed out, in the order polled; records of one partition come in runs."""
        topic, partition, last = "", -1, -1
        for record in records:
            if record.partition != partition or record.topic != topic:
                if partition >= 0:
                    self._next[TopicPartition(topic, partition)] = last + 1
                topic, partition = record.topic, record.partition
                self._first.setdefault(TopicPartition(topic, partition), record.offset)
            last = record.offset
        if partition >= 0:
            self._next[TopicPartition(topic, partition)] = last + 1

    def uncommitted(self) -> dict[TopicPartition, int]:
        """The next offset to read of every partition with uncommitted records."""
        return dict(self._next)

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Notes a commit; records at or above its offsets stay uncommitted."""
        for source, offset in offsets.items():
            if offset >= self._next.get(source, 0):
                self._first.pop(source, None)
                self._next.pop(source, None)
            else:
                self._first[source] = offset

    def rewind(self) -> dict[TopicPartition, int]:
        """Where to read on after an undo; the ledger is empty afterwards."""
        first, self._first, self._next = self._first, {}, {}
        return first

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops partitions that belong to somebody else now."""
        for source in partitions:
            self._first.pop(source, None)
            self._next.pop(source, None)
