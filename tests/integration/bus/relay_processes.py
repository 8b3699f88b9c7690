"""Starts relay workers and checks what came out of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing
from twinloop.bus.topic_spec import TopicSpec

_WORKER = Path(__file__).with_name("relay_worker.py")


@dataclass(frozen=True)
class Relay:
    """One source topic, one sink topic, and the workers between them."""

    kafka: KafkaUnderTest
    names: Names
    group_protocol: str = "classic"

    def prepare(self, count: int) -> None:
        """Makes the topics and writes records b"0".. to the four partitions of the source in turn."""
        self.kafka.create_topics(TopicSpec(self.names("in"), 4), TopicSpec(self.names("out"), 4))
        producer = IdempotentProducer(self.kafka.settings)
        for number in range(count):
            producer.send(Outgoing(self.names("in"), b"%d" % number, partition=number % 4))
        producer.flush(30)

    def worker(
        self, instance: str, *, max_records: int = 50, pause_s: float = 0.01
    ) -> subprocess.Popen[bytes]:
        """Starts a worker process; slow on purpose, so that a kill finds it at work."""
        wanted = {
            "bootstrap": self.kafka.settings.bootstrap_servers,
            "group": self.names("group"),
            "instance": self.names(instance),
            "source": self.names("in"),
            "sink": self.names("out"),
            "max_records": max_records,
            "pause_s": pause_s,
            "commit_every_s": 0.1,
            "group_protocol": self.group_protocol,
        }
        return subprocess.Popen([sys.executable, str(_WORKER), json.dumps(wanted)], stdout=subprocess.PIPE)

    def wait_for(self, count: int, *, within_s: float = 60.0) -> Counter[int]:
        """How often each number came out, once `count` records are readable (or more, where there are doubles)."""
        seen: Counter[int] = Counter()
        deadline = time.monotonic() + within_s
        with LogReader(self.kafka.settings, topics=[self.names("out")]) as reader:
            while sum(seen.values()) < count:
                assert time.monotonic() < deadline, (
                    f"{sum(seen.values())} of {count} came out within {within_s} s"
                )
                seen.update(int(record.value or b"") for record in reader.poll(1000, 0.2))
            seen.update(int(record.value or b"") for record in reader.read_to_end(20))
        return seen


def wait_ready(worker: subprocess.Popen[bytes]) -> None:
    """Returns when the worker owns partitions."""
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"


def stop(worker: subprocess.Popen[bytes]) -> None:
    """Ends a worker in good order and checks that it did, unless it was still on its way up."""
    worker.terminate()
    assert worker.wait(30) in (0, -signal.SIGTERM)
    assert worker.stdout is not None
    worker.stdout.close()


def kill(worker: subprocess.Popen[bytes]) -> None:
    """kill -9."""
    worker.kill()
    worker.wait(30)
    assert worker.stdout is not None
    worker.stdout.close()
