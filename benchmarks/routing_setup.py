"""A router's parts over a broker and a Redis of the benchmark's own; everything shipped, nothing re-written."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from schemas.event import DOMAINS, Domain
from schemas.queries import Query
from schemas.routing import Canary, RoutingState
from services.router.core.overload import OverloadPolicy
from services.router.emission import Emitter, Names
from services.router.memory import PartitionMemory
from services.router.metrics import RouterMetrics
from services.router.readiness import ReadinessReporter
from services.router.settings import RouterSection
from services.router.worker import RouterLimits, RouterParts, RouterWorker
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.mock_cluster import MockCluster
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.records import Outgoing, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.stream import TransactionalStream
from twinloop.canonical import sha256_hex
from twinloop.clock import SystemClock
from twinloop.codec import encode
from twinloop.foundation_training.corpus import World
from twinloop.kafka_jars.broker import KafkaBroker
from twinloop.kafka_jars.jars import find_java
from twinloop.kafka_jars.redis_server import start_redis
from twinloop.routing.reader import StateReader
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.rules_book import RulesBook
from twinloop.routing.verification import Verify, state_verifier
from twinloop.signing import KeyRing, Signer, create_keys, load_signer, sign_document
from twinloop.topics import TopicCatalogue

RULES = (Path(__file__).resolve().parents[1] / "configs" / "rules.json").read_bytes()
RULES_DIGEST = sha256_hex(RULES)
INCARNATION = "0123456789abcdef" * 2
ACTIVE, SHADOW = "a" * 64, "b" * 64


@dataclass(frozen=True)
class Ground:
    """Servers and keys of one benchmark."""

    kafka: KafkaSettings
    broker: str
    redis: RedisSettings
    signer: Signer
    verify: Verify

    def state(self, epoch: int, *, is_swapped: bool = False) -> bytes:
        """A signed state with a 5 % canary, as bytes."""
        slot = "blue" if is_swapped else "green"
        state = RoutingState(
            incarnation=INCARNATION,
            epoch=epoch,
            active="green" if is_swapped else "blue",
            releases={"blue": ACTIVE, "green": SHADOW},
            previous=None,
            canary=Canary(slot=slot, basis_points=500, salt="salt-of-the-benchmark"),
            rules={ACTIVE: RULES_DIGEST, SHADOW: RULES_DIGEST},
            phase="canary",
            decision_id=f"decision-{epoch}",
            changed_at=0,
            changed_by="benchmark",
        )
        return sign_document(state, self.signer).model_dump_json().encode()

    def reader(self) -> StateReader:
        return StateReader(RedisRoutingStore(self.redis), verify=self.verify)


@contextmanager
def ground(folder: Path, *, broker: str | None) -> Iterator[Ground]:
    """Starts what is needed; `broker` is `kafka`, `mock`, or None for no broker at all."""
    ring = KeyRing.load(create_keys(folder / "keys", {"gatekeeper-1": ("gatekeeper",)}))
    signer = load_signer(folder / "keys", "gatekeeper-1")
    redis = start_redis(folder / "redis")
    try:
        with _broker(broker) as kafka:
            settings = RedisSettings(url=redis.url)
            yield Ground(kafka, broker or "none", settings, signer, state_verifier(ring))
    finally:
        redis.stop()


@contextmanager
def _broker(kind: str | None) -> Iterator[KafkaSettings]:
    if kind == "kafka":
        with KafkaBroker() as broker:
            yield KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    elif kind == "mock":
        with MockCluster() as cluster:
            yield KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
    else:
        yield KafkaSettings()


def best_broker() -> str:
    """A real Kafka where Java is here, else the mock cluster."""
    return "kafka" if find_java() is not None else "mock"


def make_topics(ground: Ground, prefix: str) -> TopicCatalogue:
    topics = TopicCatalogue.load(prefix=prefix)
    KafkaAdmin(ground.kafka).ensure_topics(topics.specs())
    return topics


def questions(*, seed: int = 7, entities: int = 60) -> list[tuple[Domain, str]]:
    """Questions of the synthetic world with their domains, in a fixed shuffled order."""
    found = [
        (domain, question)
        for domain in DOMAINS
        for fact in World.generate(seed, domain, entities, attributes_per_entity=3).facts
        for question in fact.questions()
    ]
    random.Random(seed).shuffle(found)
    return found


def publish(ground: Ground, topics: TopicCatalogue, *, count: int) -> None:
    """Fills `queries` with distinct queries of distinct subjects."""
    producer = IdempotentProducer(ground.kafka)
    asked_at = time.time_ns() // 1_000_000
    asked = questions()
    partitions = topics.partitions("queries")
    for number in range(count):
        domain, text = asked[number % len(asked)]
        query = Query(
            id=f"q-{number}",
            text=text,
            asked_at=asked_at,
            subject=f"user-{number}",
            # One in five producers knows the domain; the rules choose for the others.
            domain=domain if number % 5 == 0 else None,
            deadline_ms=600_000,
        )
        value, headers = encode(query, source="benchmark", event_id=query.id, at_ms=asked_at)
        key = query.sticky_subject.encode()
        producer.send(Outgoing(topics.name("queries"), value, key, headers, number % partitions))
    producer.close(60)


def open_stream(
    ground: Ground, topics: TopicCatalogue, group: str, on_revoked: Callable[[Sequence[TopicPartition]], None]
) -> TransactionalStream:
    return TransactionalStream(
        ground.kafka,
        group=f"{topics.settings.prefix}{group}",
        topics=[topics.name("queries")],
        instance_id=group,
        on_revoked=on_revoked,
    )


def make_router(
    ground: Ground, topics: TopicCatalogue, group: str, section: RouterSection
) -> tuple[RouterWorker, TransactionalStream, RouterMetrics]:
    """The shipped worker with the shipped parts; only its rules come from a file and not from a store."""
    clock, metrics = SystemClock(), RouterMetrics(CollectorRegistry())
    parts = RouterParts(
        reader=ground.reader(),
        rules=RulesBook({RULES_DIGEST: RULES}.__getitem__),
        memory=PartitionMemory(lambda _: [], window_ms=600_000, max_ids=section.dedup_max_ids),
        emitter=Emitter(Names.of(topics), router=group, source=f"router/{group}/benchmark"),
        readiness=ReadinessReporter(
            IdempotentProducer(ground.kafka),
            topic=topics.name("readiness"),
            router=group,
            source=f"router/{group}/benchmark",
            interval_s=2.0,
            clock=clock,
        ),
        metrics=metrics,
        clock=clock,
        sleep=time.sleep,
        random=os.urandom,
    )
    limits = RouterLimits(
        batch_max=section.batch_max,
        idle_wait_s=section.idle_wait_ms / 1000,
        batch_interval_s=section.batch_interval_ms / 1000,
        commit_interval_s=section.commit_interval_ms / 1000,
        max_record_bytes=ground.kafka.max_message_bytes,
        overload=OverloadPolicy(),
    )
    streams: list[TransactionalStream] = []

    def opened(on_revoked: Callable[[Sequence[TopicPartition]], None]) -> TransactionalStream:
        streams.append(open_stream(ground, topics, group, on_revoked))
        return streams[0]

    worker = RouterWorker(
        limits, parts, service=group, dead_letters=topics.name("dead-letters"), open_stream=opened
    )
    return worker, streams[0], metrics


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
