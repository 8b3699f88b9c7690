from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.stream import TransactionalStream
from twinloop.bus.topic_spec import TopicSpec
from twinloop.errors import Fenced, Transient

pytestmark = pytest.mark.kafka

OpenStream = Callable[..., TransactionalStream]


@pytest.fixture
def source(kafka: KafkaUnderTest, names: Names) -> str:
    """40 records, ten on each of four partitions."""
    kafka.create_topics(TopicSpec(names("in"), 4), TopicSpec(names("out"), 4))
    producer = IdempotentProducer(kafka.settings)
    for number in range(40):
        producer.send(Outgoing(names("in"), b"%d" % number, partition=number % 4))
    producer.flush()
    return names("in")


@pytest.fixture
def open_stream(kafka: KafkaUnderTest, names: Names, source: str) -> Iterator[OpenStream]:
    opened: list[TransactionalStream] = []

    def open_one(instance_id: str, **more: object) -> TransactionalStream:
        settings = kafka.settings.model_copy(
            update={"max_poll_interval_ms": more.pop("max_poll_interval_ms", 300_000)}
        )
        stream = TransactionalStream(
            settings,
            group=names("group"),
            topics=[source],
            instance_id=names(instance_id),
            **more,  # type: ignore[arg-type]
        )
        opened.append(stream)
        return stream

    yield open_one
    for stream in opened:
        stream.close()


def copy(
    stream: TransactionalStream, sink: str, *, wanted: int = 1000, timeout_s: float = 0.1
) -> list[Record]:
    records = stream.poll(wanted, timeout_s)
    for record in records:
        stream.send(Outgoing(sink, record.value, partition=record.partition))
    return records


def until(is_true: Callable[[], bool], *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {within_s} s"


def take_all(stream: TransactionalStream, sink: str, count: int) -> list[Record]:
    records: list[Record] = []
    until(lambda: bool(records.extend(copy(stream, sink)) or len(records) >= count))
    return records


def committed_numbers(kafka: KafkaUnderTest, topic: str) -> list[int]:
    with LogReader(kafka.settings, topics=[topic]) as reader:
        return sorted(int(record.value or b"") for record in reader.read_to_end(20))


def test_an_open_transaction_is_committed_before_partitions_are_given_up(
    kafka: KafkaUnderTest, names: Names, open_stream: OpenStream
) -> None:
    gone: list[TopicPartition] = []
    first = open_stream("w0", on_revoked=gone.extend)
    take_all(first, names("out"), 40)
    assert first.commits == 0
    second = open_stream("w1")
    late: list[Record] = []

    def both_own_two() -> bool:
        late.extend(copy(first, names("out")))
        late.extend(copy(second, names("out")))
        return len(second.assignment()) == 2

    until(both_own_two)
    assert first.commits == 1
    assert set(gone) == second.assignment()
    second.commit()
    assert late == []
    assert committed_numbers(kafka, names("out")) == list(range(40))


def test_a_commit_under_way_ends_before_partitions_are_given_up(
    kafka: KafkaUnderTest, names: Names, open_stream: OpenStream
) -> None:
    first = open_stream("w0")
    take_all(first, names("out"), 40)
    second = open_stream("w1")
    late: list[Record] = []

    def both_own_two() -> bool:
        # Under way at every poll, so also at the one in which partitions are given up.
        first.begin_commit()
        late.extend(copy(first, names("out")))
        late.extend(copy(second, names("out")))
        return len(second.assignment()) == 2

    until(both_own_two)
    first.end_commit()
    assert first.commits == 1
    assert late == []
    assert committed_numbers(kafka, names("out")) == list(range(40))


def test_a_hook_may_hold_records_back_for_the_next_owner(
    kafka: KafkaUnderTest, names: Names, open_stream: OpenStream
) -> None:
    def finish_half(leaving: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(first.assignment(), 5)

    first = open_stream("w0", before_revoke=finish_half)
    held: list[Record] = []
    until(lambda: bool(held.extend(first.poll(100, 0.1)) or len(held) == 40))
    second = open_stream("w1")
    taken: list[Record] = []

    def second_has_ten() -> bool:
        first.poll(100, 0.05)
        taken.extend(second.poll(100, 0.05))
        return len(taken) >= 10

    until(second_has_ten)
    assert {record.offset for record in taken} == set(range(5, 10))
    assert {record.source for record in taken} == second.assignment()


def test_a_hook_that_aborts_undoes_everything_and_the_rest_comes_again(
    kafka: KafkaUnderTest, names: Names, open_stream: OpenStream
) -> None:
    first = open_stream("w0", before_revoke=lambda leaving: first.abort())
    take_all(first, names("out"), 40)
    second = open_stream("w1")
    again: list[Record] = []

    def everything_came_again() -> bool:
        again.extend(copy(first, names("out"), timeout_s=0.05))
        again.extend(copy(second, names("out"), timeout_s=0.05))
        return len(again) >= 40

    until(everything_came_again)
    first.commit()
    second.commit()
    assert committed_numbers(kafka, names("out")) == list(range(40))


def test_a_newer_process_of_the_same_name_fences_the_older(
    kafka: KafkaUnderTest, names: Names, open_stream: OpenStream
) -> None:
    older = open_stream("w0")
    take_all(older, names("out"), 40)
    newer = open_stream("w0")
    with pytest.raises(Fenced):
        older.commit()
    take_all(newer, names("out"), 40)
    newer.commit()
    assert committed_numbers(kafka, names("out")) == list(range(40))
    with pytest.raises(Fenced):
        until(lambda: bool(older.poll(1, 0.1)), within_s=20)


@pytest.mark.slow
def test_a_worker_silent_too_long_is_told_that_its_work_is_undone(
    kafka: KafkaUnderTest, names: Names, open_stream: OpenStream
) -> None:
    lost: list[TopicPartition] = []
    stream = open_stream("w0", max_poll_interval_ms=6000, on_revoked=lost.extend)
    take_all(stream, names("out"), 40)
    time.sleep(7.5)
    with pytest.raises(Transient, match="lost 4 partitions"):
        until(lambda: bool(stream.poll(100, 0.2)))
    assert len(lost) == 4
    take_all(stream, names("out"), 40)
    stream.commit()
    assert committed_numbers(kafka, names("out")) == list(range(40))


@pytest.mark.slow
def test_long_work_keeps_its_partitions_when_it_pauses_and_polls(
    kafka: KafkaUnderTest, names: Names, open_stream: OpenStream
) -> None:
    stream = open_stream("w0", max_poll_interval_ms=6000)
    take_all(stream, names("out"), 40)
    stream.pause()
    finished = time.monotonic() + 7.5
    while time.monotonic() < finished:
        assert stream.poll(100, 0.5) == []
    stream.resume()
    stream.commit()
    assert committed_numbers(kafka, names("out")) == list(range(40))
