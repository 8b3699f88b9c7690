"""The de-duplication changelog read back: what a partition's former owner had routed."""

from __future__ import annotations

from schemas.seen_ids import SeenId, SeenIds
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Record, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.codec import decode


class SeenLog:
    """Reads `seen-ids`, committed records only."""

    def __init__(self, settings: KafkaSettings, *, topic: str, window_ms: int) -> None:
        self._settings = settings
        self._topic = topic
        self._window_ms = window_ms
        # A dead owner's open transaction hides what follows it until the broker has aborted it.
        self._patience_s = settings.transaction_timeout_ms / 1000 + 20

    def read(self, origin: int, *, now_ms: int) -> list[tuple[str, int]]:
        """(id, seen at in ms) of this origin within the window.

        Raises Transient where Kafka does not answer, or a transaction stays open for longer than its time-out.
        """
        source = TopicPartition(self._topic, origin)
        with LogReader(
            self._settings, partitions=[source], from_timestamp_ms=max(0, now_ms - self._window_ms)
        ) as log:
            # Waits for open transactions to end: only then does "committed" say all there is.
            records = [record for record in log.read_to_end(self._patience_s) if record.value]
        return [pair for record in records for pair in _seen_in(record)]


def _seen_in(record: Record) -> list[tuple[str, int]]:
    if record.header("ce_type") is None:
        single = decode(record, SeenId)
        return [(single.id, single.seen_at)]
    batch = decode(record, SeenIds)
    return [(query_id, batch.seen_at) for query_id in batch.ids]
