"""Reads a log from chosen places without joining a group: read-backs, the command line, tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from twinloop.bus.records import Record, TopicPartition
from twinloop.bus.settings import KafkaSettings

Start = Literal["beginning", "end"]


class LogReader:
    """Reads explicit partitions, committed records only by default; commits nothing, joins nothing."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        topics: Sequence[str] = (),
        partitions: Sequence[TopicPartition] = (),
        start: Start = "beginning",
        offsets: Mapping[TopicPartition, int] | None = None,
        from_timestamp_ms: int | None = None,
        read_committed: bool = True,
    ) -> None:
        """Reads all partitions of `topics` and those in `partitions`, from `start`.

        `offsets` overrides the start of single partitions; `from_timestamp_ms` starts each at its first record of that
        time or later (the end, where there is none). Raises Transient where Kafka does not answer or a topic is missing.
        """

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records`: waits for the first at most `timeout_s`, then takes what is already here."""
        raise NotImplementedError

    def high_watermarks(self) -> dict[TopicPartition, int]:
        """The offset after the last readable record, asked from the brokers now."""
        raise NotImplementedError

    def read_to_end(self, timeout_s: float = 10.0) -> list[Record]:
        """Everything from here to where the log ended at the time of the call, in partition order.

        Raises Transient if that takes longer than `timeout_s`.
        """
        raise NotImplementedError

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to be read, by partition, of those read from so far."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the connection; may be called twice."""
