"""How far consumer groups are behind, asked without joining any."""

from __future__ import annotations

from types import TracebackType

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as _Partition

from twinloop.bus.client_log import CLIENT_LOG
from twinloop.bus.errors_map import kafka_errors
from twinloop.bus.settings import KafkaSettings


class GroupLag:
    """Asks for the committed offsets of one group; one thread only."""

    def __init__(self, settings: KafkaSettings, group: str) -> None:
        self._group, self._timeout_s = group, settings.request_timeout_s
        with kafka_errors(f"starting a client for the lag of {group}"):
            self._consumer = Consumer(settings.consumer_config(**{"group.id": group}), logger=CLIENT_LOG)

    def behind(self, topic: str, partitions: int) -> int | None:
        """Records of the topic after what the group has committed; None where it has committed nothing yet.

        Transaction markers count as records, because offsets do. Raises Transient where Kafka does not answer.
        """
        with kafka_errors(f"asking how far {self._group} is behind in {topic}"):
            asked = [_Partition(topic, number) for number in range(partitions)]
            committed = [
                each for each in self._consumer.committed(asked, self._timeout_s) if each.offset >= 0
            ]
            if not committed:
                return None
            ends = [
                self._consumer.get_watermark_offsets(each, self._timeout_s, cached=False)[1]
                for each in committed
            ]
        return sum(max(0, end - each.offset) for each, end in zip(committed, ends, strict=True))

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> GroupLag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
