"""Where an inference worker is put together: `python -m services.inference --config FILE...`."""

from __future__ import annotations

import os
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.inference.guarded_engine import GuardedEngine
from services.inference.metrics import InferenceMetrics
from services.inference.publishing import Publisher
from services.inference.runtime import open_runtime
from services.inference.settings import InferenceSettings
from services.inference.worker import InferenceWorker, WorkerLimits
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.stream import TransactionalStream
from twinloop.clock import SystemClock
from twinloop.process import StopSignal, config_arguments, main_guard
from twinloop.routing.disk_copy import DiskCopy
from twinloop.routing.reader import StateReader
from twinloop.routing.reader_core import ReaderPolicy
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.verification import state_verifier
from twinloop.safety import build_classifier
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing, load_signer
from twinloop.telemetry.health import HealthServer
from twinloop.telemetry.logging import configure_logging, get_logger
from twinloop.telemetry.tracing import open_tracer
from twinloop.topics import TopicCatalogue

DEFAULT_CONFIG = Path("configs/inference.yaml")


def run(settings: InferenceSettings, stop: StopSignal) -> None:
    """Serve one slot until stopped."""
    section, clock = settings.inference, SystemClock()
    name = f"inference-{section.slot}-{settings.instance}"
    topics = TopicCatalogue.under(settings.topics)
    ring = KeyRing.load(settings.keys.public_path)
    signer = load_signer(settings.keys.folder, settings.keys.key_id or "inference-1")
    registry = CollectorRegistry()
    with ExitStack() as stack:
        runtime = open_runtime(section, settings.store, ring)
        stack.callback(runtime.preparer.close)
        reader = StateReader(
            RedisRoutingStore(settings.redis),
            verify=state_verifier(ring),
            policy=ReaderPolicy(hold_max_s=section.hold_max_ms / 1000),
            disk_copy=DiskCopy(settings.state_folder / f"{name}.routing.json"),
        )
        stack.callback(reader.close)
        producer = IdempotentProducer(settings.kafka)
        stack.callback(producer.close)
        stream = TransactionalStream(
            settings.kafka,
            group=f"{settings.topics.prefix}inference.{section.slot}",
            topics=[topics.name(f"queries.{section.slot}")],
            instance_id=name,
        )
        stack.callback(stream.close)
        tracer = open_tracer("inference", settings.instance, os.environ)
        if tracer is not None:
            stack.callback(tracer.close)
        metrics = InferenceMetrics(registry)
        worker = InferenceWorker(
            _limits(settings),
            name=name,
            stream=stream,
            producer=producer,
            topics=topics,
            reader=reader,
            shelf=runtime.shelf,
            preparer=runtime.preparer,
            engine=GuardedEngine(
                runtime.engine,
                section.breaker,
                metrics=metrics,
                slot=section.slot,
                monotonic=clock.monotonic,
            ),
            toxicity=build_classifier(section.toxicity),
            publisher=Publisher(topics, worker=name, incarnation_of_process=uuid.uuid4().hex[:12]),
            signer=signer,
            metrics=metrics,
            clock=clock,
            tracer=tracer,
        )
        health = HealthServer(settings.telemetry.host, settings.telemetry.port, registry, worker.is_ready)
        stack.callback(health.close)
        get_logger(__name__).info("serving", slot=section.slot, health_port=health.port)
        worker.run(stop)


def _limits(settings: InferenceSettings) -> WorkerLimits:
    section = settings.inference
    return WorkerLimits(
        slot=section.slot,
        batch_max=section.batch_max,
        batch_wait_s=section.batch_wait_ms / 1000,
        max_hops=section.max_hops,
        overload=section.overload,
        readiness_interval_s=section.readiness_interval_s,
        prepare_timeout_s=section.prepare_timeout_s,
        keep_releases=section.keep_releases,
    )


def main() -> int:
    def start() -> None:
        settings = load_settings(InferenceSettings, *config_arguments(sys.argv[1:], DEFAULT_CONFIG))
        configure_logging("inference", settings.instance, settings.telemetry.log_level)
        run(settings, StopSignal.installed())

    return main_guard("inference", start)


if __name__ == "__main__":
    sys.exit(main())
