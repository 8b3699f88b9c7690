from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.faust_app import BusApp, build_app, commit_offsets, record_of
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.stream import TransactionalStream
from twinloop.bus.topic_spec import TopicSpec

pytestmark = pytest.mark.asyncio


def reading_app(kafka: KafkaUnderTest, names: Names, seen: list[Record]) -> BusApp:
    """An app that notes each record of the topic `rows` and commits the offset after it."""
    app = build_app(kafka.settings, group=names("tally"), partitions=4)
    topic = app.topic(names("rows"), partitions=4)

    async def read(stream: object) -> None:
        async for event in stream.noack().events():  # type: ignore[attr-defined]
            record = record_of(event)
            seen.append(record)
            await commit_offsets(app, {record.source: record.offset + 1})

    app.agent(topic, name="read")(read)
    return app


async def until(is_true: Callable[[], bool], *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.05)


def router(kafka: KafkaUnderTest, names: Names) -> TransactionalStream:
    return TransactionalStream(
        kafka.settings, group=names("router"), topics=[names("queries")], instance_id=names("router")
    )


@pytest.fixture
def topics(kafka: KafkaUnderTest, names: Names) -> None:
    kafka.create_topics(TopicSpec(names("queries"), 4), TopicSpec(names("rows"), 4))


@pytest.mark.kafka
@pytest.mark.usefixtures("topics")
async def test_an_aborted_row_is_never_seen_and_its_rerouted_successor_exactly_once(
    kafka: KafkaUnderTest, names: Names
) -> None:
    seen: list[Record] = []
    with router(kafka, names) as stream:
        app = reading_app(kafka, names, seen)
        await app.start()
        try:
            for number in range(20):
                stream.send(Outgoing(names("rows"), b"blue %d" % number, partition=number % 4))
            # On the broker, not only in the producer's own queue.
            stream._producer._producer.flush(10)
            await asyncio.sleep(1.0)
            assert seen == []
            stream.abort()
            for number in range(20):
                stream.send(Outgoing(names("rows"), b"green %d" % number, partition=number % 4))
            stream.commit()
            await until(lambda: len(seen) >= 20)
            await asyncio.sleep(0.5)
        finally:
            await app.stop()
    assert sorted(record.value or b"" for record in seen) == sorted(
        b"green %d" % number for number in range(20)
    )


@pytest.mark.kafka
@pytest.mark.usefixtures("topics")
async def test_a_restarted_app_reads_on_where_it_committed(kafka: KafkaUnderTest, names: Names) -> None:
    seen: list[Record] = []
    with router(kafka, names) as stream:
        for round_number in range(2):
            app = reading_app(kafka, names, seen)
            await app.start()
            try:
                # One record per transaction: every second offset is a marker, from the very first on.
                for number in range(8):
                    stream.send(Outgoing(names("rows"), b"%d-%d" % (round_number, number), partition=0))
                    stream.commit()
                    stream.send(Outgoing(names("rows"), b"undone", partition=0))
                    stream._producer._producer.flush(10)
                    stream.abort()
                await until(lambda wanted=8 * (round_number + 1): len(seen) >= wanted)  # type: ignore[misc]
            finally:
                await app.stop()
    assert [record.value for record in seen] == [b"%d-%d" % (a, b) for a in range(2) for b in range(8)]
    assert seen[0].source == TopicPartition(names("rows"), 0)
    assert seen[0].timestamp_ms > 0


async def test_the_mock_cluster_serves_it_without_delay(mock_kafka: KafkaUnderTest, names: Names) -> None:
    mock_kafka.create_topics(TopicSpec(names("queries"), 4), TopicSpec(names("rows"), 4))
    seen: list[Record] = []
    with router(mock_kafka, names) as stream:
        app = reading_app(mock_kafka, names, seen)
        await app.start()
        try:
            stream.send(Outgoing(names("rows"), b"first", headers=(("h", b"1"),)))
            stream.commit()
            await until(lambda: len(seen) == 1)
            started = time.monotonic()
            stream.send(Outgoing(names("rows"), b"second"))
            stream.commit()
            await until(lambda: len(seen) == 2)
            # faust's own fetch wait is 1.5 s.
            assert time.monotonic() - started < 1.0
        finally:
            await app.stop()
    assert seen[0].header("h") == b"1"
