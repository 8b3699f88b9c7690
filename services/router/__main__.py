"""Where a router is put together: `python -m services.router --config FILE...`."""

from __future__ import annotations

import gc
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.router.emission import Emitter, Names
from services.router.memory import PartitionMemory
from services.router.metrics import RouterMetrics
from services.router.partitions import refuse_unequal_partitions
from services.router.readiness import ReadinessReporter
from services.router.seen_log import SeenLog
from services.router.settings import RouterSettings
from services.router.worker import RouterLimits, RouterParts, RouterWorker
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.records import TopicPartition
from twinloop.bus.stream import TransactionalStream
from twinloop.clock import Clock, SystemClock
from twinloop.process import StopSignal, config_arguments, main_guard
from twinloop.registry.background_reads import BackgroundReads
from twinloop.registry.blobs import open_store
from twinloop.routing.disk_copy import DiskCopy
from twinloop.routing.reader import StateReader
from twinloop.routing.reader_core import ReaderPolicy
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.rules_book import RulesBook
from twinloop.routing.verification import state_verifier
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing
from twinloop.telemetry.health import HealthServer
from twinloop.telemetry.logging import configure_logging, get_logger
from twinloop.telemetry.tracing import open_tracer
from twinloop.topics import TopicCatalogue

DEFAULT_CONFIG = Path("configs/router.yaml")


def run(settings: RouterSettings, stop: StopSignal) -> None:
    """Route until stopped."""
    clock = SystemClock()
    name = f"router-{settings.instance}"
    topics = TopicCatalogue.under(settings.topics)
    registry = CollectorRegistry()
    refuse_unequal_partitions(KafkaAdmin(settings.kafka).partition_counts(), topics)
    with ExitStack() as stack:
        parts = _parts(settings, topics, name=name, clock=clock, registry=registry, stack=stack)

        def open_stream(on_revoked: Callable[[Sequence[TopicPartition]], None]) -> TransactionalStream:
            stream = TransactionalStream(
                settings.kafka,
                group=f"{settings.topics.prefix}router",
                topics=[topics.name("queries")],
                instance_id=name,
                on_revoked=on_revoked,
            )
            stack.callback(stream.close)
            return stream

        worker = RouterWorker(
            _limits(settings),
            parts,
            service=name,
            dead_letters=topics.name("dead-letters"),
            open_stream=open_stream,
        )
        health = HealthServer(settings.telemetry.host, settings.telemetry.port, registry, worker.is_ready)
        stack.callback(health.close)
        get_logger(__name__).info("serving", health_port=health.port)
        tune_interpreter()
        worker.run(stop)


def tune_interpreter() -> None:
    """Settings of the whole process that the routing loop is measured with.

    Batches hold no cycles: looking for some after every 700 of their tuples costs a tenth of the rate. And the thread
    that commits waits half a millisecond for the interpreter, not 5, while the next batch is decided.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(0.0005)


def _parts(
    settings: RouterSettings,
    topics: TopicCatalogue,
    *,
    name: str,
    clock: Clock,
    registry: CollectorRegistry,
    stack: ExitStack,
) -> RouterParts:
    section = settings.router
    source = f"router/{name}/{uuid.uuid4().hex[:12]}"
    window_ms = section.dedup_window_s * 1000
    reader = StateReader(
        RedisRoutingStore(settings.redis),
        verify=state_verifier(KeyRing.load(settings.keys.public_path)),
        policy=ReaderPolicy(hold_max_s=section.hold_max_ms / 1000),
        disk_copy=DiskCopy(settings.state_folder / f"{name}.routing.json"),
    )
    stack.callback(reader.close)
    producer = IdempotentProducer(settings.kafka)
    stack.callback(producer.close, 5.0)
    tracer = open_tracer("router", settings.instance, os.environ)
    if tracer is not None:
        stack.callback(tracer.close)
    seen_log = SeenLog(settings.kafka, topic=topics.name("seen-ids"), window_ms=window_ms)
    return RouterParts(
        reader=reader,
        rules=RulesBook(BackgroundReads(open_store(settings.store).get)),
        memory=PartitionMemory(
            lambda origin: seen_log.read(origin, now_ms=clock.now_ms()),
            window_ms=window_ms,
            max_ids=section.dedup_max_ids,
        ),
        emitter=Emitter(Names.of(topics), router=name, source=source),
        readiness=ReadinessReporter(
            producer,
            topic=topics.name("readiness"),
            router=name,
            source=source,
            interval_s=section.readiness_interval_s,
            clock=clock,
        ),
        metrics=RouterMetrics(registry),
        clock=clock,
        sleep=time.sleep,
        random=os.urandom,
        tracer=tracer,
    )


def _limits(settings: RouterSettings) -> RouterLimits:
    section = settings.router
    return RouterLimits(
        batch_max=section.batch_max,
        idle_wait_s=section.idle_wait_ms / 1000,
        batch_interval_s=section.batch_interval_ms / 1000,
        commit_interval_s=section.commit_interval_ms / 1000,
        max_record_bytes=settings.kafka.max_message_bytes,
        overload=section.overload,
    )


def main() -> int:
    def start() -> None:
        settings = load_settings(RouterSettings, *config_arguments(sys.argv[1:], DEFAULT_CONFIG))
        configure_logging("router", settings.instance, settings.telemetry.log_level)
        run(settings, StopSignal.installed())

    return main_guard("router", start)


if __name__ == "__main__":
    sys.exit(main())
