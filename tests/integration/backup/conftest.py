"""A small installation on the session's Kafka with something in every topic a back-up holds, and no service running."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.trainer.harness import TrainerBench
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.records import Outgoing
from twinloop.bus.transactions import TransactionalProducer
from twinloop.embedded.valkey import EmbeddedValkey


class SmallInstallation:
    """One life in the topics, and settings of an empty place for the next one."""

    def __init__(self, folder: Path, kafka: KafkaUnderTest, prefix: str, redis_url: str) -> None:
        self.folder, self.kafka = folder, kafka
        self.bench = TrainerBench(folder / "old", kafka=kafka.settings, prefix=prefix)
        self.redis_url = redis_url
        self.old = self.profile(folder / "old")
        self.new = self.profile(folder / "new")

    def live(self) -> None:
        """What people and services write: plainly, in transactions, in transactions that are undone, and no UTF-8."""
        bench = self.bench
        bench.genesis()
        bench.give(*(bench.feedback(number, f"q{number}?", f"a{number}") for number in range(7)))
        for number in range(5):
            bench.publish("documents", bench.document(f"d-{number}", f"text {number}"), key=f"law/d-{number}")
        for number in range(3):
            bench.command("train", f"nonce-{number}")
            bench.publish("gate-inputs", bench.document("x", "any event will do"), key="tick", partition=0)
        bench.producer.flush()
        producer = TransactionalProducer(self.kafka.settings, f"{bench.topics.settings.prefix}writer")
        for number in range(6):
            for topic in ("releases", "feedback.status", "dead-letters"):
                name = bench.topics.name(topic)
                producer.send(Outgoing(name, b"\xff%d" % number, b"k", (("h", b"\xfe"),), partition=0))
            if number == 3:
                producer.flush(10)
                producer.abort()
            else:
                producer.commit([], None)
        producer.close()

    def wipe(self) -> None:
        """Delete every topic, and wait until that is so."""
        admin = KafkaAdmin(self.kafka.settings)
        names = [spec.name for spec in self.bench.topics.specs()]
        admin.delete_topics(names)
        deadline = time.monotonic() + 30
        while admin.partition_counts(names) and time.monotonic() < deadline:
            time.sleep(0.05)

    def profile(self, folder: Path, **changes: Any) -> Path:
        document = {
            "kafka": {"bootstrap_servers": self.kafka.settings.bootstrap_servers},
            "redis": {"url": self.redis_url, "password": None},
            "store": {"url": (folder / "store").as_uri(), "create_folder": True},
            "keys": {"folder": str(folder / "keys")},
            "state_folder": str(folder / "state"),
            "topics": self.bench.topics.settings.model_dump(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "settings.yaml"
        path.write_text(yaml.safe_dump({**document, **changes}))
        return path

    def log(self) -> dict[str, list[Any]]:
        return {topic: self.bench.records(topic) for topic in self.bench.topics.backed_up()}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def small(tmp_path: Path, kafka: KafkaUnderTest, names: Names, valkey: EmbeddedValkey) -> SmallInstallation:
    found = SmallInstallation(tmp_path, kafka, f"{names('b')}.", valkey.url)
    found.live()
    return found
