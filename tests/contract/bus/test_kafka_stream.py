from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.bus.stream_contract import OpenStream, StreamContract
from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.records import Outgoing, Record


@pytest.mark.kafka
class TestKafkaStream(StreamContract):
    @pytest.fixture
    def edge(self, kafka: KafkaUnderTest) -> KafkaUnderTest:
        return kafka

    def test_aborts_on_the_heels_of_commits_leave_the_stream_usable(
        self, source: str, names: Names, open_stream: OpenStream, written: Callable[[], list[Record]]
    ) -> None:
        # Kafka still writes the marks of the commit, so that the next transaction's first request has to wait, and
        # one abort in ten finds no transaction there.
        stream, padding = open_stream(source), b" " * 300
        for number in range(20):
            stream.send_all(
                Outgoing(names("out"), b"%d" % number + padding, partition=at % 4) for at in range(300)
            )
            stream.commit()
            stream.send_all(
                Outgoing(names("out"), b"undone" + padding, partition=at % 4) for at in range(300)
            )
            stream.abort()
        values = [int(record.value or b"") for record in written()]
        assert values.count(0) == 300
        assert sorted(set(values)) == list(range(20))
