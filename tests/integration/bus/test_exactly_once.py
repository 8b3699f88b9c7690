from __future__ import annotations

import time

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.bus.relay_processes import Relay, kill, stop, wait_ready

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_three_kills_lose_nothing_and_double_nothing(kafka: KafkaUnderTest, names: Names) -> None:
    relay = Relay(kafka, names)
    relay.prepare(5000)
    worker = relay.worker("w0")
    for _ in range(3):
        wait_ready(worker)
        time.sleep(0.25)
        kill(worker)
        worker = relay.worker("w0")
    try:
        seen = relay.wait_for(5000)
    finally:
        stop(worker)
    assert seen == dict.fromkeys(range(5000), 1)


@pytest.mark.parametrize("group_protocol", ["classic", "consumer"])
def test_workers_that_come_and_go_lose_nothing_and_double_nothing(
    kafka: KafkaUnderTest, names: Names, group_protocol: str
) -> None:
    relay = Relay(kafka, names, group_protocol)
    relay.prepare(12_000)
    running = [relay.worker("w0")]
    try:
        wait_ready(running[0])
        running.append(relay.worker("w1"))
        wait_ready(running[1])
        time.sleep(0.5)
        stop(running.pop(0))
        running.append(relay.worker("w2"))
        wait_ready(running[1])
        time.sleep(0.5)
        kill(running.pop(0))
        running.append(relay.worker("w1"))
        seen = relay.wait_for(12_000, within_s=90)
    finally:
        # How they end is another test's matter; here the records are counted.
        for worker in running:
            kill(worker)
    assert seen == dict.fromkeys(range(12000), 1)
