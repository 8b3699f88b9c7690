"""Kafka's answers to a commit, made up by the mock cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from twinloop.bus.mock_cluster import MockCluster
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.stream import TransactionalStream
from twinloop.errors import Fenced, Transient

ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 25, 26, 28


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as started:
        yield started


@pytest.fixture
def stream(cluster: MockCluster) -> Iterator[TransactionalStream]:
    settings = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
    producer = IdempotentProducer(settings)
    for number in range(10):
        producer.send(Outgoing("in", b"%d" % number, partition=0))
    producer.flush()
    with TransactionalStream(settings, group="g", topics=["in"], instance_id="w0") as opened:
        yield opened


def take(stream: TransactionalStream, count: int, *, within_s: float = 20.0) -> list[Record]:
    deadline = time.monotonic() + within_s
    records: list[Record] = []
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} within {within_s} s"
        records += stream.poll(100, 0.1)
    return records


def work_that_a_rebalance_overtakes(cluster: MockCluster, stream: TransactionalStream) -> None:
    """Ten records read and one sent; the next commit is refused, as the group has gone on without this member."""
    take(stream, 10)
    stream.send(Outgoing("out", b"x"))
    cluster.fail_next(TXN_OFFSET_COMMIT, [KafkaError.ILLEGAL_GENERATION])


@pytest.mark.parametrize("request_kind", [ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT])
def test_an_answer_that_asks_for_a_retry_is_retried(
    cluster: MockCluster, stream: TransactionalStream, request_kind: int
) -> None:
    take(stream, 10)
    stream.send(Outgoing("out", b"x"))
    cluster.fail_next(request_kind, [KafkaError.COORDINATOR_LOAD_IN_PROGRESS] * 2)
    stream.commit()
    assert stream.commits == 1


def test_a_rebalance_seen_by_the_broker_undoes_the_work_and_brings_it_again(
    cluster: MockCluster, stream: TransactionalStream
) -> None:
    work_that_a_rebalance_overtakes(cluster, stream)
    with pytest.raises(Transient, match="undone"):
        stream.commit()
    assert not stream.in_transaction
    assert [record.offset for record in take(stream, 10)] == list(range(10))
    stream.commit()
    assert stream.commits == 1


def test_a_commit_under_way_that_fails_takes_what_was_polled_meanwhile_along(
    cluster: MockCluster, stream: TransactionalStream
) -> None:
    taken = stream.poll(5, 10.0)
    stream.send(Outgoing("out", b"x"))
    cluster.fail_next(TXN_OFFSET_COMMIT, [KafkaError.ILLEGAL_GENERATION])
    stream.begin_commit()
    take(stream, 10 - len(taken))
    with pytest.raises(Transient, match="undone"):
        stream.end_commit()
    assert [record.offset for record in take(stream, 10)] == list(range(10))
    stream.begin_commit()
    stream.end_commit()
    assert stream.commits == 1


def test_a_fenced_producer_ends_the_worker(cluster: MockCluster, stream: TransactionalStream) -> None:
    take(stream, 10)
    stream.send(Outgoing("out", b"x"))
    cluster.fail_next(END_TXN, [KafkaError.PRODUCER_FENCED])
    with pytest.raises(Fenced):
        stream.commit()


def test_an_abort_that_finds_no_transaction_open_at_the_broker_undoes_the_work_and_goes_on(
    cluster: MockCluster, stream: TransactionalStream
) -> None:
    work_that_a_rebalance_overtakes(cluster, stream)
    cluster.fail_next(END_TXN, [KafkaError.INVALID_TXN_STATE])
    with pytest.raises(Transient, match="undone"):
        stream.commit()
    assert [record.offset for record in take(stream, 10)] == list(range(10))
    stream.send(Outgoing("out", b"x"))
    stream.commit()
    assert stream.commits == 1


def test_an_abort_that_finds_a_successor_ends_the_worker(
    cluster: MockCluster, stream: TransactionalStream
) -> None:
    work_that_a_rebalance_overtakes(cluster, stream)
    cluster.fail_next(END_TXN, [KafkaError.PRODUCER_FENCED])
    with pytest.raises(Fenced):
        stream.commit()


def test_an_unanswered_commit_at_an_offset_that_did_not_move_is_never_read_as_done(
    cluster: MockCluster,
) -> None:
    settings = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers, commit_timeout_s=1.0)
    IdempotentProducer(settings).send(Outgoing("in", b"x", partition=0))
    with TransactionalStream(settings, group="g", topics=["in"], instance_id="w0") as stream:
        take(stream, 1)
        stream.commit()
        stream.send(Outgoing("out", b"lost with its transaction"))
        cluster.fail_next(END_TXN, [KafkaError.COORDINATOR_LOAD_IN_PROGRESS] * 200)
        with pytest.raises(Transient, match="not committed"):
            stream.commit({TopicPartition("in", 0): 1})
        assert stream.commits == 1


@pytest.mark.slow
def test_a_call_that_ignores_its_own_time_out_does_not_stop_the_worker(
    cluster: MockCluster, stream: TransactionalStream
) -> None:
    take(stream, 10)
    stream.commit()
    stream.send(Outgoing("in", b"one more", partition=0))
    stream.commit()
    take(stream, 1)
    stream.send(Outgoing("out", b"x"))
    cluster.set_reachable(False)
    started = time.monotonic()
    with pytest.raises(Transient):
        stream.commit()
    assert time.monotonic() - started < 20
    cluster.set_reachable(True)
    assert [record.value for record in take(stream, 1, within_s=40)] == [b"one more"]
    stream.send(Outgoing("out", b"x"))
    stream.commit()
