"""What a partition's former owner left in an open transaction is waited for, never passed over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from schemas.seen_ids import SeenIds
from services.router.seen_log import SeenLog
from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, TopicPartition
from twinloop.bus.topic_spec import TopicSpec
from twinloop.bus.transactions import TransactionalProducer
from twinloop.codec import encode

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000


@pytest.fixture
def topic(kafka: KafkaUnderTest, names: Names) -> str:
    kafka.create_topics(TopicSpec(names("seen-ids"), 1))
    return names("seen-ids")


@pytest.fixture
def owner(kafka: KafkaUnderTest, names: Names, topic: str) -> Iterator[TransactionalProducer]:
    """A router that has one id in an open transaction."""
    producer = TransactionalProducer(kafka.settings, names("owner"))
    now_ms = time.time_ns() // 1_000_000
    value, headers = encode(
        SeenIds(origin=0, ids=("q-1",), seen_at=now_ms), source="x", event_id="e-1", at_ms=now_ms
    )
    producer.send(Outgoing(topic, value, headers=headers, partition=0))
    producer.flush(20)
    yield producer
    producer.close()


def test_the_changelog_is_read_only_once_the_former_owner_s_transaction_has_ended(
    kafka: KafkaUnderTest, topic: str, owner: TransactionalProducer
) -> None:
    log = SeenLog(kafka.settings, topic=topic, window_ms=HOUR_MS)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(log.read, 0, now_ms=time.time_ns() // 1_000_000)
        with pytest.raises(FutureTimeout):
            reading.result(timeout=3)
        owner.commit([], None)
        assert [query_id for query_id, _ in reading.result(timeout=30)] == ["q-1"]


def test_a_reader_that_starts_by_time_starts_before_what_is_still_open(
    kafka: KafkaUnderTest, topic: str, owner: TransactionalProducer
) -> None:
    source, now_ms = TopicPartition(topic, 0), time.time_ns() // 1_000_000
    with LogReader(kafka.settings, partitions=[source], from_timestamp_ms=now_ms - HOUR_MS) as reader:
        assert reader.positions() == {source: 0}
        owner.commit([], None)
        assert [record.offset for record in reader.read_to_end(20)] == [0]
    with LogReader(kafka.settings, partitions=[source], from_timestamp_ms=now_ms + HOUR_MS) as reader:
        assert reader.read_to_end(20) == []
