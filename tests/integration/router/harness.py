"""A router process on a broker and a Redis of its own, and what a test needs to feed and watch it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import redis
import yaml

from schemas.event import Event
from schemas.queries import Query
from schemas.routing import Canary, Mirror, RoutingState
from schemas.seen_ids import SeenIds
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Headers, Outgoing, Record
from twinloop.bus.settings import KafkaSettings
from twinloop.codec import decode, encode
from twinloop.registry.blobs import open_store
from twinloop.registry.store_settings import StoreSettings
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import Installed, InstallMode, Refused
from twinloop.signing import create_keys, load_signer, sign_document
from twinloop.topics import TopicCatalogue

E = TypeVar("E", bound=Event)

ROOT = Path(__file__).resolve().parents[3]
INCARNATION = "0123456789abcdef" * 2
ACTIVE, SHADOW = "a" * 64, "b" * 64
SALT = "s" * 32


class RouterBench:
    """Topics under a prefix of their own, a key, a store with the default rules, and a routing state."""

    def __init__(self, folder: Path, *, kafka: KafkaSettings, redis_url: str, prefix: str) -> None:
        self.folder = folder
        self.kafka = kafka
        self.redis = RedisSettings(url=redis_url, key=f"{prefix}routing")
        self.topics = TopicCatalogue.load(prefix=prefix)
        KafkaAdmin(kafka).ensure_topics(self.topics.specs())
        create_keys(folder / "keys", {"gatekeeper-1": ("gatekeeper",), "stranger-1": ("viewer",)})
        self.store_settings = StoreSettings(url=(folder / "store").as_uri(), create_folder=True)
        self.rules = open_store(self.store_settings).put((ROOT / "configs" / "rules.json").read_bytes())
        self.producer = IdempotentProducer(kafka)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._logs: dict[int, tuple[Path, int]] = {}

    def state(self, epoch: int, **changes: Any) -> RoutingState:
        """A signed state: blue is active, green holds the shadow release, nothing is revoked."""
        values: dict[str, Any] = {
            "incarnation": INCARNATION,
            "epoch": epoch,
            "active": "blue",
            "releases": {"blue": ACTIVE, "green": SHADOW},
            "previous": None,
            "rules": {ACTIVE: self.rules, SHADOW: self.rules},
            "phase": "steady",
            "decision_id": f"decision-{epoch}",
            "changed_at": 1_700_000_000_000,
            "changed_by": "gatekeeper-1",
        }
        unsigned = RoutingState.model_validate({**values, **changes})
        return sign_document(unsigned, load_signer(self.folder / "keys", "gatekeeper-1"))

    def canary_state(self, epoch: int, basis_points: int = 1000) -> RoutingState:
        canary = Canary(slot="green", basis_points=basis_points, salt=SALT)
        return self.state(epoch, canary=canary, phase="canary")

    def mirror_state(self, epoch: int, basis_points: int = 10_000) -> RoutingState:
        return self.state(epoch, mirror=Mirror(slot="green", basis_points=basis_points, salt=SALT))

    def install(self, state: RoutingState, mode: InstallMode = "advance") -> Installed | Refused:
        store = RedisRoutingStore(self.redis)
        try:
            return store.install(state.model_dump_json().encode(), mode=mode)
        finally:
            store.close()

    def overwrite(self, value: bytes) -> None:
        """Puts bytes under the key past every rule, as a failover to an old copy or an intruder would."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.set(self.redis.key, value)

    def start_router(self, instance: str = "0", **router: Any) -> subprocess.Popen[bytes]:
        """Starts a router process; it is killed at the latest by `close()`."""
        config = {
            "instance": instance,
            "state_folder": str(self.folder / "state"),
            "kafka": {
                "bootstrap_servers": self.kafka.bootstrap_servers,
                "transaction_timeout_ms": 5000,
            },
            "redis": {"url": self.redis.url, "key": self.redis.key},
            "store": {"url": self.store_settings.url},
            "keys": {"folder": str(self.folder / "keys")},
            "topics": {"prefix": self.topics.settings.prefix},
            "router": router,
        }
        path = self.folder / f"router-{instance}.yaml"
        path.write_text(yaml.safe_dump(config))
        path_of_log = self.folder / f"router-{instance}.log"
        with path_of_log.open("ab") as log:
            earlier = log.tell()
            command = [sys.executable, "-m", "services.router", "--config", str(path)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
        self.processes.append(process)
        self._logs[process.pid] = (path_of_log, earlier)
        return process

    def stop_router(self, process: subprocess.Popen[bytes]) -> int:
        """Ends a router in good order; its exit status. One that still starts is awaited: it has no handler yet."""
        path, start = self._logs[process.pid]
        deadline = time.monotonic() + 60
        while process.poll() is None and b"serving" not in path.read_bytes()[start:]:
            assert time.monotonic() < deadline, f"the router is not serving after 60 s: {path.read_text()}"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        return process.wait(20)

    def log_of(self, instance: str = "0") -> str:
        return (self.folder / f"router-{instance}.log").read_text()

    def ask(self, queries: Sequence[Query], *, headers: Headers = ()) -> None:
        """Publishes queries to the partition their subject hashes to; returns when Kafka has them."""
        for query in queries:
            value, own = encode(query, source="test", event_id=query.id, at_ms=query.asked_at)
            self.publish(value, key=query.sticky_subject, headers=(*own, *headers))
        self.producer.flush(20)

    def publish(self, value: bytes, *, key: str, headers: Headers = ()) -> None:
        partition = sum(key.encode()) % self.topics.partitions("queries")
        self.producer.send(Outgoing(self.topics.name("queries"), value, key.encode(), headers, partition))

    def records(self, topic: str) -> list[Record]:
        """Every committed record of a declared topic."""
        with LogReader(self.kafka, topics=[self.topics.name(topic)]) as log:
            return log.read_to_end(20)

    def events(self, topic: str, event: type[E]) -> list[E]:
        return [decode(record, event) for record in self.records(topic)]

    def wait_for(self, topic: str, count: int, *, seconds: float = 60) -> list[Record]:
        """The records of a topic once there are `count`; fails with the router's log otherwise.

        The wait includes the start of a router process, and a busy machine takes its time over that.
        """
        return self.wait_until(
            lambda: self.records(topic), lambda found: len(found) >= count, seconds=seconds
        )

    def wait_until(
        self, look: Callable[[], list[Any]], is_enough: Callable[[list[Any]], bool], *, seconds: float = 60
    ) -> list[Any]:
        deadline = time.monotonic() + seconds
        while True:
            found = look()
            if is_enough(found):
                return found
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))
                raise AssertionError(f"only {len(found)} records after {seconds} s; routers said:\n{logs}")
            time.sleep(0.05)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        self.producer.close(5)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def questions(count: int, *, start: int = 0, **fields: Any) -> list[Query]:
    """Distinct queries of distinct subjects, asked now."""
    asked_at = now_ms()
    return [
        Query(
            id=f"q-{number}",
            text="What is the notice period of contract Belvis?",
            asked_at=asked_at,
            deadline_ms=60_000,
            **{"subject": f"user-{number}", **fields},
        )
        for number in range(start, start + count)
    ]


def ids(records: Sequence[Record]) -> list[str]:
    return [json.loads(record.value or b"{}")["id"] for record in records]


def seen_ids(bench: RouterBench) -> list[str]:
    """Every id in the de-duplication changelog, in its order."""
    return [query_id for batch in bench.events("seen-ids", SeenIds) for query_id in batch.ids]
