"""Where an installation's Kafka and Redis come from: inside this program, from local servers, or from elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal, Protocol

from twinloop.bus.topic_spec import TopicSpec
from twinloop.kafka_jars.broker import KafkaBroker
from twinloop.kafka_jars.redis_server import start_redis
from twinloop.stack.child_process import ChildProcess

Profile = Literal["embedded", "kafka", "external"]


class Backend(Protocol):
    """Running brokers and a running Redis."""

    @property
    def bootstrap_servers(self) -> str: ...

    @property
    def redis_url(self) -> str: ...

    @property
    def description(self) -> str:
        """For people: what this is and what it does not promise."""

    def stop(self) -> None: ...


class EmbeddedBackend:
    """librdkafka's in-process brokers and Valkey, in one child process."""

    description = (
        "embedded: Kafka's protocol from librdkafka's in-process broker, in memory, and a real Valkey. A new start has "
        "fresh topics and is a new incarnation; about 5 MB are kept a partition; no proof of transactions."
    )

    def __init__(self, folder: Path, *, logs: Path, topics: tuple[TopicSpec, ...]) -> None:
        state_file = folder / "embedded.json"
        state_file.unlink(missing_ok=True)
        # The log is gone with the broker's process, so the key that mirrors it must go too.
        for stale in (folder / "valkey").glob("**/*"):
            if stale.is_file():
                stale.unlink()
        command = [sys.executable, "-m", "twinloop.embedded", "--data-dir", str(folder)]
        command += ["--state-file", str(state_file), "--brokers", "4"]
        for topic in topics:
            command += ["--topic", f"{topic.name}={topic.partitions}"]
        self._child = ChildProcess("backend", command, log=logs / "backend.log")
        self._child.start()
        self._child.wait_for_file(state_file, 30.0)
        state = json.loads(state_file.read_text(encoding="utf-8"))
        self.bootstrap_servers: str = state["bootstrap_servers"]
        self.redis_url: str = state["redis_url"]

    def stop(self) -> None:
        self._child.stop()


class LocalServersBackend:
    """A real Kafka from Maven jars and a real redis-server (Valkey where there is none) of this program's own."""

    description = (
        "kafka: a real single-node Kafka (KRaft, from Maven jars, Java 17) and a real Redis with its append-only file "
        "synced on every write; data is kept in the installation's folder."
    )

    def __init__(self, folder: Path) -> None:
        self._broker = KafkaBroker(folder=folder / "kafka").start()
        self._redis = start_redis(folder / "redis")
        self.bootstrap_servers = self._broker.bootstrap_servers
        self.redis_url = self._redis.url

    def stop(self) -> None:
        self._broker.close()
        self._redis.stop()


class ExternalBackend:
    """Brokers and a Redis that somebody else runs; stopping leaves them alone."""

    description = "external: brokers and Redis named by configuration."

    def __init__(self, *, bootstrap_servers: str, redis_url: str) -> None:
        self.bootstrap_servers, self.redis_url = bootstrap_servers, redis_url

    def stop(self) -> None:
        """Nothing here was started here."""
