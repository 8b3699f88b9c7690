"""A process that sends one order and ends."""

from __future__ import annotations

import time

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.producer import PromptProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.topic_spec import TopicSpec
from twinloop.errors import Transient


@pytest.mark.kafka
def test_the_first_record_of_a_process_is_acknowledged_before_an_idempotent_producer_had_its_id(
    kafka: KafkaUnderTest, names: Names
) -> None:
    kafka.create_topics(TopicSpec(names("orders"), 1))
    taken = []
    for number in range(5):
        began = time.monotonic()
        producer = PromptProducer(kafka.settings)
        producer.send(Outgoing(names("orders"), b"%d" % number, partition=0))
        producer.close()
        taken.append(time.monotonic() - began)
    # librdkafka asks for an id half a second after the start; the best of five, because the machine may be busy.
    assert min(taken) < 0.4
    with LogReader(kafka.settings, topics=[names("orders")]) as log:
        assert [record.value for record in log.read_to_end(20)] == [b"0", b"1", b"2", b"3", b"4"]


def test_an_order_nobody_acknowledges_is_an_error() -> None:
    producer = PromptProducer(KafkaSettings(bootstrap_servers="127.0.0.1:9"))
    producer.send(Outgoing("orders", b"x", partition=0))
    with pytest.raises(Transient, match="not acknowledged"):
        producer.close(0.3)
