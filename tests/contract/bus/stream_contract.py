"""What every Kafka edge of this project promises, run on the mock cluster and on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.stream import TransactionalStream
from twinloop.bus.topic_spec import TopicSpec
from twinloop.errors import ConfigError, InvalidEvent

OpenStream = Callable[..., TransactionalStream]


def drain(stream: TransactionalStream, count: int, *, within_s: float = 30.0) -> list[Record]:
    """Polls until `count` records came; fails the test where they do not."""
    deadline = time.monotonic() + within_s
    records: list[Record] = []
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records within {within_s} s"
        records += stream.poll(count - len(records), 0.1)
    return records


def poll_for(stream: TransactionalStream, seconds: float) -> list[Record]:
    """Whatever comes within that time."""
    deadline = time.monotonic() + seconds
    records: list[Record] = []
    while time.monotonic() < deadline:
        records += stream.poll(100, 0.05)
    return records


def wait_assigned(
    stream: TransactionalStream, wanted: set[TopicPartition], *, within_s: float = 30.0
) -> None:
    """Polls until the stream owns exactly `wanted`; fails on any record meanwhile."""
    deadline = time.monotonic() + within_s
    while stream.assignment() != wanted:
        assert time.monotonic() < deadline, f"{stream.assignment()} within {within_s} s, not {wanted}"
        assert stream.poll(100, 0.1) == []


class StreamContract:
    """Subclasses give the fixture `edge`."""

    @pytest.fixture
    def edge(self) -> KafkaUnderTest:
        raise NotImplementedError

    @pytest.fixture
    def source(self, edge: KafkaUnderTest, names: Names) -> str:
        """A topic with 40 records on partitions 0 and 1, values b"0".."39"."""
        topic = names("in")
        edge.create_topics(TopicSpec(topic, 4), TopicSpec(names("out"), 4))
        producer = IdempotentProducer(edge.settings)
        for number in range(40):
            producer.send(Outgoing(topic, b"%d" % number, key=b"k", partition=number % 2))
        producer.flush()
        return topic

    @pytest.fixture
    def open_stream(self, edge: KafkaUnderTest, names: Names) -> Iterator[OpenStream]:
        opened: list[TransactionalStream] = []

        def open_one(topic: str, *, instance_id: str = "w0", **more: object) -> TransactionalStream:
            stream = TransactionalStream(
                edge.settings,
                group=names("group"),
                topics=[topic],
                instance_id=instance_id,
                transactional_id=names(instance_id),
                **more,  # type: ignore[arg-type]
            )
            opened.append(stream)
            return stream

        yield open_one
        for stream in opened:
            stream.close()

    @pytest.fixture
    def written(self, edge: KafkaUnderTest, names: Names) -> Callable[[], list[Record]]:
        """Everything committed to the output topic."""

        def read() -> list[Record]:
            with LogReader(edge.settings, topics=[names("out")]) as reader:
                return reader.read_to_end(20)

        return read

    def test_what_was_committed_does_not_come_again_after_a_restart(
        self, source: str, names: Names, open_stream: OpenStream, written: Callable[[], list[Record]]
    ) -> None:
        with open_stream(source) as stream:
            for record in drain(stream, 40):
                stream.send(Outgoing(names("out"), record.value, record.key, partition=record.partition))
            assert stream.in_transaction
            stream.commit()
            assert not stream.in_transaction
            assert stream.commits == 1
        assert sorted(int(record.value or b"") for record in written()) == list(range(40))
        with open_stream(source) as again:
            wait_assigned(again, {TopicPartition(source, number) for number in range(4)})
            assert poll_for(again, 0.5) == []

    def test_an_abort_brings_the_same_records_back_in_order(
        self, source: str, names: Names, open_stream: OpenStream
    ) -> None:
        stream = open_stream(source)
        first = drain(stream, 25)
        stream.send(Outgoing(names("out"), b"undone"))
        stream.abort()
        assert not stream.in_transaction
        again = drain(stream, 40)
        for partition in (0, 1):
            offsets = [record.offset for record in again if record.partition == partition]
            assert offsets == list(range(20))
        assert {record.offset for record in first} <= {record.offset for record in again}

    def test_an_abort_goes_back_to_the_last_commit_and_no_further(
        self, source: str, open_stream: OpenStream
    ) -> None:
        stream = open_stream(source)
        committed = {(record.partition, record.offset) for record in drain(stream, 10)}
        stream.commit()
        drain(stream, 10)
        stream.abort()
        rest = [(record.partition, record.offset) for record in drain(stream, 30)]
        assert len(set(rest)) == 30
        assert not committed & set(rest)

    def test_records_polled_while_a_commit_is_under_way_belong_to_the_next(
        self, source: str, names: Names, open_stream: OpenStream, written: Callable[[], list[Record]]
    ) -> None:
        stream = open_stream(source)
        first = drain(stream, 10)
        for record in first:
            stream.send(Outgoing(names("out"), record.value, partition=record.partition))
        stream.begin_commit()
        undone = drain(stream, 10)
        stream.end_commit()
        assert stream.commits == 1
        stream.abort()
        rest = drain(stream, 40 - len(first))
        assert {record.value for record in undone} <= {record.value for record in rest}
        assert {record.value for record in written()} == {record.value for record in first}
        assert not {record.value for record in first} & {record.value for record in rest}

    def test_what_is_sent_after_a_commit_was_begun_is_not_part_of_it(
        self, source: str, names: Names, open_stream: OpenStream, written: Callable[[], list[Record]]
    ) -> None:
        stream = open_stream(source)
        drain(stream, 40)
        stream.send(Outgoing(names("out"), b"1", partition=0))
        stream.begin_commit()
        stream.send(Outgoing(names("out"), b"2", partition=0))
        assert stream.commits == 1
        stream.abort()
        assert [record.value for record in written() if record.value == b"1"] == [b"1"]
        assert stream.commits == 1

    def test_an_abort_while_paused_is_not_lost(self, source: str, open_stream: OpenStream) -> None:
        stream = open_stream(source)
        drain(stream, 40)
        stream.pause()
        stream.abort()
        assert poll_for(stream, 0.5) == []
        stream.resume()
        assert len(drain(stream, 40)) == 40

    def test_a_pause_holds_records_and_a_resume_lets_them_flow(
        self, source: str, open_stream: OpenStream
    ) -> None:
        stream = open_stream(source)
        before = drain(stream, 5)
        stream.pause()
        assert poll_for(stream, 0.5) == []
        stream.resume()
        rest = drain(stream, 35)
        assert len({(record.partition, record.offset) for record in [*before, *rest]}) == 40

    def test_a_pause_before_the_first_assignment_holds_too(
        self, source: str, open_stream: OpenStream
    ) -> None:
        stream = open_stream(source)
        stream.pause()
        deadline = time.monotonic() + 20
        while not stream.assignment() and time.monotonic() < deadline:
            assert stream.poll(100, 0.1) == []
        assert poll_for(stream, 0.5) == []
        stream.resume()
        assert len(drain(stream, 40)) == 40

    def test_what_waits_behind_a_batch_is_counted(self, source: str, open_stream: OpenStream) -> None:
        stream = open_stream(source)
        left = 40
        while left:
            left -= len(stream.poll(15, 0.1))
            if left < 20:  # both partitions have been heard of
                assert stream.waiting() == left
        assert stream.waiting() == 0

    def test_one_partition_may_be_paused_alone(self, source: str, open_stream: OpenStream) -> None:
        stream = open_stream(source)
        drain(stream, 1)
        stream.abort()
        stream.pause([TopicPartition(source, 0)])
        assert {record.partition for record in poll_for(stream, 1.0)} == {1}
        stream.resume([TopicPartition(source, 0)])
        assert {record.partition for record in drain(stream, 20)} == {0}

    def test_records_held_back_from_a_partial_commit_come_again(
        self, source: str, open_stream: OpenStream
    ) -> None:
        with open_stream(source) as stream:
            drain(stream, 40)
            stream.commit({TopicPartition(source, 0): 15}, metadata={TopicPartition(source, 0): "closed=7"})
            found = stream.committed_metadata([TopicPartition(source, 0), TopicPartition(source, 1)])
            assert found == {TopicPartition(source, 0): (15, "closed=7")}
            stream.abort()
            again = drain(stream, 25)
            assert {record.offset for record in again if record.partition == 0} == {15, 16, 17, 18, 19}
        with open_stream(source) as restarted:
            assert sorted(record.offset for record in drain(restarted, 25) if record.partition == 0) == [
                15,
                16,
                17,
                18,
                19,
            ]

    def test_a_commit_before_a_batch_leaves_that_batch_to_come_again(
        self, source: str, names: Names, open_stream: OpenStream, written: Callable[[], list[Record]]
    ) -> None:
        stream = open_stream(source)
        before = drain(stream, 10)
        stream.send(Outgoing(names("out"), b"kept", partition=0))
        batch = poll_for(stream, 5.0)
        assert batch
        stream.commit_before(batch)
        stream.send(Outgoing(names("out"), b"undone", partition=1))
        stream.abort()
        again = drain(stream, 40 - len(before))
        assert sorted(int(record.value or b"") for record in [*before, *again]) == list(range(40))
        assert b"kept" in [record.value for record in written()]

    def test_closing_undoes_what_is_uncommitted(
        self, source: str, names: Names, open_stream: OpenStream
    ) -> None:
        with open_stream(source) as stream:
            drain(stream, 40)
            stream.send(Outgoing(names("out"), b"unfinished"))
        with open_stream(source) as again:
            assert len(drain(again, 40)) == 40

    def test_an_oversize_record_is_refused_and_the_stream_goes_on(
        self, source: str, names: Names, open_stream: OpenStream, written: Callable[[], list[Record]]
    ) -> None:
        stream = open_stream(source)
        drain(stream, 40)
        stream.send(Outgoing(names("out"), b"before"))
        with pytest.raises(InvalidEvent, match="limit"):
            stream.send(Outgoing(names("out"), b"x" * (1024 * 1024 + 1)))
        stream.send(Outgoing(names("out"), b"after"))
        stream.commit()
        assert {record.value for record in written()} == {b"before", b"after"}

    def test_bytes_keys_headers_and_partition_arrive_unchanged(
        self, source: str, names: Names, open_stream: OpenStream, written: Callable[[], list[Record]]
    ) -> None:
        stream = open_stream(source)
        headers = (("a", b"1"), ("a", b"2"), ("empty", b""), ("bytes", b"\xff\x00"))
        stream.send(Outgoing(names("out"), b"\x00\xff", key=b"\xfe", headers=headers, partition=3))
        stream.send(Outgoing(names("out"), None, key=b"tombstone", partition=2))
        stream.send(Outgoing(names("out"), b"", partition=1))
        stream.commit()
        found = {record.partition: record for record in written()}
        assert (found[3].value, found[3].key, found[3].headers) == (b"\x00\xff", b"\xfe", headers)
        assert found[3].header("a") == b"2"
        assert (found[2].value, found[2].key) == (None, b"tombstone")
        assert (found[1].value, found[1].key, found[1].headers) == (b"", None, ())

    def test_nothing_done_commits_nothing(self, source: str, open_stream: OpenStream) -> None:
        stream = open_stream(source)
        stream.commit()
        stream.abort()
        assert stream.commits == 0

    def test_the_start_may_be_chosen_when_partitions_are_assigned(
        self, source: str, open_stream: OpenStream
    ) -> None:
        stream = open_stream(
            source, on_assigned=lambda given: {TopicPartition(source, 0): 18, TopicPartition(source, 1): 17}
        )
        found = sorted((record.partition, record.offset) for record in drain(stream, 5))
        assert found == [(0, 18), (0, 19), (1, 17), (1, 18), (1, 19)]

    def test_a_reader_starts_where_it_is_told(self, edge: KafkaUnderTest, source: str) -> None:
        first = TopicPartition(source, 0)
        with LogReader(edge.settings, topics=[source]) as reader:
            everything = reader.read_to_end()
            assert [record.offset for record in everything if record.partition == 1] == list(range(20))
            assert reader.high_watermarks()[first] == 20
            assert reader.read_to_end() == []
        with LogReader(edge.settings, partitions=[first], offsets={first: 18}) as reader:
            assert [record.offset for record in reader.read_to_end()] == [18, 19]
        with LogReader(edge.settings, topics=[source], start="end") as reader:
            assert reader.read_to_end() == []
            producer = IdempotentProducer(edge.settings)
            producer.send(Outgoing(source, b"new", partition=0))
            producer.flush()
            assert [record.value for record in reader.read_to_end()] == [b"new"]

    def test_a_reader_without_anything_to_read_is_refused(self, edge: KafkaUnderTest) -> None:
        with pytest.raises(ConfigError, match="topics or partitions"):
            LogReader(edge.settings)

    def test_topics_are_made_once_and_checked_after(self, edge: KafkaUnderTest, names: Names) -> None:
        admin = KafkaAdmin(edge.settings)
        spec = TopicSpec(names("declared"), 4)
        assert admin.ensure_topics([spec]) == {spec.name: 4}
        assert admin.ensure_topics([spec]) == {spec.name: 4}
        with pytest.raises(ConfigError, match="declared with 9"):
            admin.ensure_topics([TopicSpec(spec.name, 9)])
        assert admin.partition_counts([spec.name, "no-such-topic"]) == {spec.name: 4}
