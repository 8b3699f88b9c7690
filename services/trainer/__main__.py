"""`python -m services.trainer [--config FILE]...`: the only place where the trainer's parts are wired."""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.trainer.child_process import WarmProcess
from services.trainer.metrics import TrainerMetrics
from services.trainer.screening import ClassifierScreen
from services.trainer.settings import TrainerSettings
from services.trainer.training_run import Tools
from services.trainer.worker import Parts, TrainerWorker
from twinloop.clock import SystemClock
from twinloop.errors import ConfigError
from twinloop.process import StopSignal, config_arguments, main_guard
from twinloop.registry.blobs import open_store
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.safety.classifier import build_classifier
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing, load_signer
from twinloop.telemetry.health import HealthServer
from twinloop.telemetry.logging import configure_logging, get_logger
from twinloop.topics import TopicCatalogue

DEFAULT_CONFIG = Path("configs/trainer.yaml")


def main(arguments: list[str]) -> int:
    return main_guard("trainer", lambda: _serve(arguments))


def _serve(arguments: list[str]) -> None:
    settings = load_settings(TrainerSettings, *config_arguments(arguments, DEFAULT_CONFIG))
    configure_logging("trainer", settings.instance, settings.telemetry.log_level)
    stop = StopSignal.installed()
    registry = CollectorRegistry()
    worker = TrainerWorker(build_parts(settings, registry))
    health = HealthServer(settings.telemetry.host, settings.telemetry.port, registry, worker.is_ready)
    get_logger("trainer").info("serving", health_port=health.port)
    try:
        worker.run(stop)
    finally:
        health.close()


def build_parts(settings: TrainerSettings, registry: CollectorRegistry) -> Parts:
    """Wire everything a worker needs; raises ConfigError naming what is missing."""
    section = settings.trainer
    ring = KeyRing.load(settings.keys.public_path)
    signer = load_signer(settings.keys.folder, settings.key_id)
    if "trainer" not in ring.roles_of(signer.key_id):
        raise ConfigError(f"{settings.keys.public_path}: key {signer.key_id!r} has not the role trainer")
    clock = SystemClock()
    screen = ClassifierScreen(
        [
            (str(spec.get("label", spec["kind"])), build_classifier(_plain(spec)))
            for spec in section.classifiers
        ]
    )
    tools = Tools(
        store=open_store(settings.store),
        ring=ring,
        signer=signer,
        embedder=build_embedder(section.embedder),
        settings=section,
        classifiers=screen.versions,
        work_folder=settings.work_folder,
        process=WarmProcess(
            section.job.module, log=settings.work_folder / "learning.log", nice=section.job.nice
        ),
        now_ms=clock.now_ms,
    )
    return Parts(
        settings=settings,
        tools=tools,
        topics=TopicCatalogue.under(settings.topics),
        screen=screen,
        metrics=TrainerMetrics(registry),
        clock=clock,
    )


def _plain(spec: object) -> dict[str, object]:
    assert isinstance(spec, dict)
    return {name: value for name, value in spec.items() if name != "label"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
