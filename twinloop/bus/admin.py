"""Creates the declared topics and waits until Kafka and they are there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as _Partition
from confluent_kafka._model import IsolationLevel
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import ClusterMetadata, TopicMetadata
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from twinloop.bus.client_log import CLIENT_LOG
from twinloop.bus.errors_map import kafka_error, kafka_errors
from twinloop.bus.records import TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.topic_spec import TopicSpec
from twinloop.errors import ConfigError, Transient

_TOPIC_ALREADY_EXISTS = 36
_PAUSE_S = 0.05


class KafkaAdmin:
    """Cluster administration, as far as this project needs it."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        with kafka_errors(f"starting an admin client for {settings.bootstrap_servers}"):
            self._client = AdminClient(settings.client_config(), logger=CLIENT_LOG)

    def wait_ready(self, timeout_s: float = 30.0, *, brokers: int = 1) -> None:
        """Returns when at least `brokers` brokers answer; raises Transient naming the servers when they do not."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if len(self._metadata(min(1.0, timeout_s)).brokers) >= brokers:
                    return
            except Transient:
                pass
            if time.monotonic() > deadline:
                raise Transient(
                    f"no Kafka answered at {self._settings.bootstrap_servers} within {timeout_s:g} s: "
                    "is it running, and is bootstrap_servers right?"
                )
            time.sleep(_PAUSE_S)

    def partition_counts(self, topics: Iterable[str] | None = None) -> dict[str, int]:
        """Partitions of each of `topics` (default: all) that exists; raises Transient where Kafka does not answer."""
        wanted = None if topics is None else set(topics)
        found = self._metadata(self._settings.request_timeout_s).topics
        return {
            name: len(topic.partitions)
            for name, topic in found.items()
            if topic.error is None and (wanted is None or name in wanted)
        }

    def ensure_topics(
        self, specs: Sequence[TopicSpec], *, replication_factor: int = 1, timeout_s: float = 30.0
    ) -> dict[str, int]:
        """Creates the topics that are missing and waits until every partition has a leader; returns the counts.

        Raises ConfigError where an existing topic has fewer partitions than declared (more are accepted: the mock
        cluster gives 4 to a topic nobody created on it) or Kafka refuses a spec; Transient where it does not answer.
        """
        counts = self.partition_counts()
        missing = [spec for spec in specs if spec.name not in counts]
        if missing and self.is_mock_cluster():
            # It has no CreateTopics: asking for a topic by name makes it.
            for spec in missing:
                self._touch(spec.name)
        elif missing:
            self._create(missing, replication_factor=replication_factor)
        counts = self._wait_for_leaders([spec.name for spec in specs], timeout_s=timeout_s)
        for spec in specs:
            if counts[spec.name] < spec.partitions:
                raise ConfigError(
                    f"topic {spec.name} has {counts[spec.name]} partitions and is declared with {spec.partitions}; "
                    "add partitions while nothing runs, or mend the declaration"
                )
        return counts

    def delete_topics(self, names: Sequence[str]) -> None:
        """Deletes topics and their records; raises Transient where Kafka does not answer."""
        for name, future in self._client.delete_topics(list(names)).items():
            with kafka_errors(f"deleting topic {name}"):
                future.result(self._settings.request_timeout_s)

    def end_of(self, source: TopicPartition) -> int:
        """The offset after the last record or marker written, asked from the broker now; raises Transient."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        with kafka_errors(f"asking the end of {source.topic}[{source.partition}]"):
            asked = self._client.list_offsets(
                {_Partition(*source): latest}, isolation_level=IsolationLevel.READ_UNCOMMITTED
            )
            return next(
                int(future.result(self._settings.request_timeout_s).offset) for future in asked.values()
            )

    def delete_before(self, source: TopicPartition, offset: int) -> None:
        """Let a partition begin at `offset`; raises Transient where Kafka is silent, ConfigError where it refuses."""
        until = _Partition(source.topic, source.partition, offset)
        with kafka_errors(f"deleting {source.topic}[{source.partition}] before offset {offset}"):
            for future in self._client.delete_records([until]).values():
                future.result(self._settings.request_timeout_s)

    def set_topic_config(self, topic: str, name: str, value: str) -> None:
        """Set one broker-side property of a topic; raises Transient where Kafka does not answer, ConfigError."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        with kafka_errors(f"setting {name} of topic {topic}"):
            for future in self._client.incremental_alter_configs([resource]).values():
                future.result(self._settings.request_timeout_s)

    def is_mock_cluster(self) -> bool:
        """Whether this is librdkafka's in-memory cluster; raises Transient where it does not answer."""
        return is_mock_cluster(self._metadata(self._settings.request_timeout_s).cluster_id)

    def _create(self, specs: Sequence[TopicSpec], *, replication_factor: int) -> None:
        new = [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=replication_factor,
                config=dict(spec.config),
            )
            for spec in specs
        ]
        for name, future in self._client.create_topics(new).items():
            try:
                future.result(self._settings.request_timeout_s)
            except KafkaException as cause:
                error = kafka_error(cause)
                # Another process was faster: what it made is checked with the rest.
                if error is not None and error.code() == _TOPIC_ALREADY_EXISTS:
                    continue
                if error is not None and not error.retriable():
                    raise ConfigError(f"Kafka refused to create topic {name}: {error.str()}") from cause
                with kafka_errors(f"creating topic {name}"):
                    raise

    def _touch(self, name: str) -> None:
        with kafka_errors(f"creating topic {name}"):
            self._client.list_topics(name, timeout=self._settings.request_timeout_s)

    def _wait_for_leaders(self, names: Sequence[str], *, timeout_s: float) -> dict[str, int]:
        deadline = time.monotonic() + timeout_s
        while True:
            topics = self._metadata(self._settings.request_timeout_s).topics
            late = [name for name in names if not _has_leaders(topics.get(name))]
            if not late:
                return {name: len(topics[name].partitions) for name in names}
            if time.monotonic() > deadline:
                raise Transient(f"topics without a leader after {timeout_s:g} s: {', '.join(late)}")
            time.sleep(_PAUSE_S)

    def _metadata(self, timeout_s: float) -> ClusterMetadata:
        with kafka_errors(f"asking {self._settings.bootstrap_servers} for its topics"):
            return self._client.list_topics(timeout=timeout_s)


def is_mock_cluster(cluster_id: str | None) -> bool:
    """The cluster of that id is librdkafka's mock, which lacks some requests."""
    return bool(cluster_id and cluster_id.startswith("mockCluster"))


def _has_leaders(topic: TopicMetadata | None) -> bool:
    if topic is None or not topic.partitions:
        return False
    return all(entry.leader >= 0 for entry in topic.partitions.values())
