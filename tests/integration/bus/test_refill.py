"""Records put back at the offsets they had, over every kind of gap a real log has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.refill import LogRefill
from twinloop.bus.topic_spec import TopicSpec
from twinloop.bus.transactions import TransactionalProducer

pytestmark = pytest.mark.kafka


def record(source: TopicPartition, offset: int) -> Record:
    return Record(
        topic=source.topic,
        partition=source.partition,
        offset=offset,
        key=b"key-%d" % offset,
        value=None if offset % 5 == 4 else b"value \xff %d" % offset,
        headers=(("ce_type", b"t"), ("raw", b"\x00\xfe")),
        timestamp_ms=1_750_000_000_000 + offset,
    )


def refilled(
    kafka: KafkaUnderTest, topic: str, offsets: Sequence[int], *, end: int
) -> tuple[list[Record], list[Record], int]:
    """(what was put back, what is read, where the partition ends)."""
    kafka.create_topics(TopicSpec(topic, 2))
    source = TopicPartition(topic, 1)
    wanted = [record(source, offset) for offset in offsets]
    with LogRefill(kafka.settings, transactional_id=f"{topic}-refill") as refill:
        assert refill.fill(source, wanted, end=end) == len(wanted)
    with LogReader(kafka.settings, partitions=[source]) as reader:
        return wanted, reader.read_to_end(30), reader.high_watermarks()[source]


@pytest.mark.parametrize(
    ("offsets", "end"),
    [
        pytest.param(range(5), 5, id="no gap"),
        pytest.param((0, 1, 3, 4, 5, 7), 8, id="a marker after some, and at the end"),
        pytest.param((0, 3, 7, 50), 61, id="aborted or compacted between and after"),
        pytest.param((1, 2), 3, id="one record expired"),
        pytest.param((40, 41, 43), 44, id="many expired"),
        pytest.param((), 17, id="all expired"),
        pytest.param((), 1, id="the only one expired"),
        pytest.param((), 0, id="never written"),
    ],
)
def test_each_record_gets_its_own_offset_back(
    kafka: KafkaUnderTest, names: Names, offsets: Sequence[int], end: int
) -> None:
    wanted, found, found_end = refilled(kafka, names("refill"), offsets, end=end)
    assert found == wanted
    assert found_end == end


def test_what_a_trainer_wrote_in_transactions_comes_back_at_the_same_places(
    kafka: KafkaUnderTest, names: Names
) -> None:
    original = TopicPartition(names("original"), 1)
    kafka.create_topics(TopicSpec(original.topic, 2))
    producer = TransactionalProducer(kafka.settings, names("writer"))
    for number in range(6):
        for part in range(1 + number % 3):
            producer.send(Outgoing(original.topic, b"%d.%d" % (number, part), b"k", partition=1))
        if number in (2, 3):
            producer.flush(10)
            producer.abort()
        else:
            producer.commit([], None)
    producer.close()
    with LogReader(kafka.settings, partitions=[original]) as reader:
        records, end = reader.read_to_end(30), reader.high_watermarks()[original]
    assert end > len(records) + 4
    copy = TopicPartition(names("copy"), 1)
    kafka.create_topics(TopicSpec(copy.topic, 2))
    with LogRefill(kafka.settings, transactional_id=names("refill")) as refill:
        refill.fill(copy, records, end=end)
    with LogReader(kafka.settings, partitions=[copy]) as reader:
        found, found_end = reader.read_to_end(30), reader.high_watermarks()[copy]
    assert [(each.offset, each.value, each.timestamp_ms) for each in found] == [
        (each.offset, each.value, each.timestamp_ms) for each in records
    ]
    assert found_end == end


def test_a_compacted_topic_is_filled_while_it_may_still_delete(kafka: KafkaUnderTest, names: Names) -> None:
    topic = names("compacted")
    admin = KafkaAdmin(kafka.settings)
    kafka.create_topics(TopicSpec(topic, 2, {"cleanup.policy": "compact"}))
    admin.set_topic_config(topic, "cleanup.policy", "delete")
    wanted, found, _ = refilled(kafka, topic, (3, 8), end=9)
    admin.set_topic_config(topic, "cleanup.policy", "compact")
    assert found == wanted
