"""Reads a log from chosen places without joining a group: read-backs, the command line, tests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError
from confluent_kafka import TopicPartition as _Partition
from confluent_kafka._model import IsolationLevel
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from twinloop.bus.admin import is_mock_cluster
from twinloop.bus.client_log import CLIENT_LOG
from twinloop.bus.errors_map import as_twinloop_error, kafka_errors
from twinloop.bus.message_records import to_records
from twinloop.bus.records import Record, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import ConfigError, Fenced, Transient

Start = Literal["beginning", "end"]

_BATCH = 1000
_METADATA_PAUSE_S = 0.05


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

        `offsets` overrides the start of single partitions; `from_timestamp_ms` starts each at its first record of
        that time or later, in an open transaction too (the end, where there is none; on the mock cluster at `start`).
        Raises Transient where Kafka does not answer or a topic is missing.
        """
        self._settings = settings
        self._name = f"reader of {', '.join([*topics, *sorted({source.topic for source in partitions})])}"
        self._positions: dict[TopicPartition, int] = {}
        self._is_closed = False
        config = settings.consumer_config(
            **{
                # librdkafka wants a group name even where no group is joined.
                "group.id": "twinloop-reader",
                "isolation.level": "read_committed" if read_committed else "read_uncommitted",
                "enable.partition.eof": True,
            }
        )
        with kafka_errors(f"starting a {self._name}"):
            self._consumer = Consumer(config, logger=CLIENT_LOG)
            self._admin = AdminClient(settings.client_config(), logger=CLIENT_LOG)
        try:
            self._partitions = self._all_partitions(topics, partitions)
            with kafka_errors(f"starting a {self._name}"):
                self._consumer.assign(self._starts(start, offsets or {}, from_timestamp_ms))
        except BaseException:
            self.close()
            raise

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records`: waits for the first at most `timeout_s`, then takes what is already here."""
        deadline = time.monotonic() + timeout_s
        while True:
            with kafka_errors(f"polling as {self._name}"):
                first = self._consumer.poll(max(0.0, deadline - time.monotonic()))
                if first is None:
                    return []
                rest = self._consumer.consume(max_records - 1, 0) if max_records > 1 else []
            records = to_records([first, *rest], on_error=self._judge)
            for record in records:
                # An end-of-partition notice later in the same batch may have moved it further already.
                self._positions[record.source] = max(record.offset + 1, self._positions.get(record.source, 0))
            # An end-of-partition notice is no record: the wait for one goes on.
            if records or time.monotonic() >= deadline:
                return records

    def high_watermarks(self) -> dict[TopicPartition, int]:
        """The offset after the last record written, in open transactions too, asked from the brokers now."""
        # Our own consumer would answer with the end of what is committed: a transaction whose commit was confirmed
        # a moment ago may still be missing there.
        deadline = time.monotonic() + self._settings.request_timeout_s
        while True:
            try:
                return self._asked_offsets(OffsetSpec.latest())  # type: ignore[no-untyped-call]
            except Transient:
                # A topic that was just created has no leader for a moment.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_METADATA_PAUSE_S)

    def _asked_offsets(self, place: OffsetSpec) -> dict[TopicPartition, int]:
        """The offset of that place by partition, records of open transactions included; -1 where there is none."""
        futures = self._admin.list_offsets(
            {_Partition(*source): place for source in self._partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._settings.request_timeout_s,
        )
        found: dict[TopicPartition, int] = {}
        for entry, future in futures.items():
            with kafka_errors(f"asking for an offset of {entry.topic}[{entry.partition}]"):
                found[TopicPartition(entry.topic, entry.partition)] = future.result().offset
        return found

    def read_to_end(self, timeout_s: float = 10.0) -> list[Record]:
        """Everything from here to where the log ended at the time of the call, sorted by partition and offset.

        Waits for transactions open at that time to end, so that what was committed before the call is always there.
        Raises Transient if that takes longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        ends = self.high_watermarks()
        records: list[Record] = []
        while any(self._positions.get(source, -1) < end for source, end in ends.items() if end > 0):
            if time.monotonic() > deadline:
                raise Transient(
                    f"{self._name} did not reach the end {ends} within {timeout_s:g} s, only {self._positions}"
                )
            records += self.poll(_BATCH, 0.1)
        return sorted(records, key=lambda record: (record.topic, record.partition, record.offset))

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to be read, by partition, of those read from so far."""
        return dict(self._positions)

    @property
    def partitions(self) -> tuple[TopicPartition, ...]:
        """What this reader reads."""
        return tuple(self._partitions)

    def close(self) -> None:
        """Closes the connection; may be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self._consumer.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _all_partitions(
        self, topics: Sequence[str], partitions: Sequence[TopicPartition]
    ) -> list[TopicPartition]:
        found = list(partitions)
        for topic in topics:
            found += [TopicPartition(topic, number) for number in range(self._count(topic))]
        if not found:
            raise ConfigError("a LogReader needs topics or partitions to read")
        return found

    def _count(self, topic: str) -> int:
        deadline = time.monotonic() + self._settings.request_timeout_s
        while True:
            with kafka_errors(f"asking {self._settings.bootstrap_servers} for topic {topic}"):
                metadata = self._consumer.list_topics(topic, timeout=self._settings.request_timeout_s)
            found = metadata.topics[topic]
            if found.error is None and found.partitions:
                return len(found.partitions)
            if time.monotonic() > deadline:
                raise Transient(
                    f"topic {topic} is not on {self._settings.bootstrap_servers}; create the topics first"
                )
            time.sleep(_METADATA_PAUSE_S)

    def _starts(
        self, start: Start, offsets: Mapping[TopicPartition, int], from_timestamp_ms: int | None
    ) -> list[_Partition]:
        logical = OFFSET_BEGINNING if start == "beginning" else OFFSET_END
        found = dict.fromkeys(self._partitions, logical)
        if from_timestamp_ms is not None and not self._is_mock():
            # The mock cluster knows no times and answers "end" to all: there, too much is read and not too little.
            # Elsewhere "end" is the one from before the question: a transaction that is committed in between counts.
            ends = self.high_watermarks()
            asked = self._asked_offsets(OffsetSpec.for_timestamp(from_timestamp_ms))
            found = {source: at if at >= 0 else ends[source] for source, at in asked.items()}
        if start == "end" and from_timestamp_ms is None:
            # "End" is now, not whenever the first fetch happens to go out.
            found = self.high_watermarks()
        found.update({source: at for source, at in offsets.items() if source in found})
        self._positions.update({source: at for source, at in found.items() if at >= 0})
        return [_Partition(source.topic, source.partition, at) for source, at in found.items()]

    def _is_mock(self) -> bool:
        return is_mock_cluster(self._consumer.cluster_id(self._settings.request_timeout_s))

    def _judge(self, message: Any) -> None:
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            # Transaction markers take offsets but are no records: only this notice says they were passed.
            source = TopicPartition(message.topic(), message.partition())
            self._positions[source] = max(message.offset(), self._positions.get(source, 0))
            return
        found = as_twinloop_error(error, doing=f"polling as {self._name}")
        if isinstance(found, Fenced | ConfigError):
            raise found
