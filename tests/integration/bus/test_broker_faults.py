from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.stream import TransactionalStream
from twinloop.bus.topic_spec import TopicSpec
from twinloop.errors import ConfigError, Fenced, Transient
from twinloop.kafka_jars.broker import KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]


def prepared(broker: KafkaBroker, *, copies: int = 1, **more: object) -> KafkaSettings:
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, **more)  # type: ignore[arg-type]
    KafkaAdmin(settings).ensure_topics([TopicSpec("in", 4), TopicSpec("out", 4)], replication_factor=copies)
    producer = IdempotentProducer(settings)
    for number in range(2000):
        producer.send(Outgoing("in", b"%d" % number, partition=number % 4))
    producer.flush(30)
    return settings


def relay(settings: KafkaSettings, *, fault: Callable[[], None]) -> None:
    """Relays until every offset is committed, restarting as a supervisor would; runs `fault` in the middle."""
    faults = [fault]
    deadline = time.monotonic() + 100
    while True:
        assert time.monotonic() < deadline
        try:
            with TransactionalStream(settings, group="g", topics=["in"], instance_id="w0") as stream:
                _relay_until_done(stream, faults, deadline)
                return
        except (Fenced, Transient) as error:
            print(f"restarting: {error}")


def _relay_until_done(stream: TransactionalStream, faults: list[Callable[[], None]], deadline: float) -> None:
    everything = {TopicPartition("in", number): (500, "") for number in range(4)}
    sent = 0
    while stream.committed_metadata(everything) != everything:
        assert time.monotonic() < deadline
        try:
            records = stream.poll(100, 0.1)
            for record in records:
                stream.send(Outgoing("out", record.value, partition=record.partition))
            sent += len(records)
            if sent >= 700 and faults:
                faults.pop()()
            stream.commit()
        except Transient as error:
            print(f"undone: {error}")


def counted(settings: KafkaSettings) -> Counter[int]:
    with LogReader(settings, topics=["out"]) as reader:
        return Counter(int(record.value or b"") for record in reader.read_to_end(30))


EXACTLY_ONCE = dict.fromkeys(range(2000), 1)


def test_a_killed_and_restarted_broker_loses_and_doubles_nothing(own_kafka: KafkaBroker) -> None:
    settings = prepared(own_kafka, commit_timeout_s=60.0)

    def fault() -> None:
        own_kafka.kill()
        own_kafka.start()

    relay(settings, fault=fault)
    assert counted(settings) == EXACTLY_ONCE


def test_a_commit_nobody_confirmed_is_settled_by_asking(own_kafka: KafkaBroker) -> None:
    settings = prepared(own_kafka, commit_timeout_s=1.5, request_timeout_s=20.0)
    timers: list[threading.Timer] = []

    def fault() -> None:
        own_kafka.freeze()
        timers.append(threading.Timer(4.0, own_kafka.thaw))
        timers[0].start()

    relay(settings, fault=fault)
    timers[0].join()
    assert counted(settings) == EXACTLY_ONCE


def test_a_record_the_broker_finds_too_large_stops_the_worker(own_kafka: KafkaBroker) -> None:
    settings = prepared(own_kafka)
    KafkaAdmin(settings).ensure_topics([TopicSpec("narrow", 1, {"max.message.bytes": "2000"})])
    with TransactionalStream(settings, group="g2", topics=["in"], instance_id="w0") as stream:
        stream.send(Outgoing("narrow", b"x" * 5000))
        with pytest.raises(ConfigError, match=r"max\.message\.bytes"):
            stream.commit()
        assert not stream.in_transaction


def test_an_absent_broker_is_named() -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_s=0.5)
    with pytest.raises(Transient, match=r"127\.0\.0\.1:1"):
        KafkaAdmin(settings).wait_ready(0.5)
    with pytest.raises(Transient, match=r"127\.0\.0\.1:1"):
        TransactionalStream(settings, group="g", topics=["in"], instance_id="w0")
    with pytest.raises(Transient, match=r"127\.0\.0\.1:1"):
        LogReader(settings, topics=["in"])


def test_three_nodes_lose_nothing_when_one_is_killed() -> None:
    with KafkaBroker(nodes=3) as cluster:
        settings = prepared(cluster, copies=3, commit_timeout_s=60.0)
        relay(settings, fault=cluster.kill)
        assert counted(settings) == EXACTLY_ONCE
