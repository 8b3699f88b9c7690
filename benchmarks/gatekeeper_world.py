"""A real gatekeeper process with a broker, Redis and a store; the world around it is the integration tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from benchmarks.routing_setup import best_broker, ground
from tests.integration.gatekeeper.world import World
from twinloop.bus.admin import KafkaAdmin

W = TypeVar("W", bound=World)


@contextmanager
def world(kind: type[W], folder: Path, *, broker: str | None = None) -> Iterator[W]:
    """A world on a broker of its own (real Kafka where Java is here)."""
    with ground(folder, broker=broker or best_broker()) as under:
        home = folder / "world"
        home.mkdir()
        made = kind(kafka=under.kafka, redis_url=under.redis.url, folder=home, prefix="bench.")
        KafkaAdmin(under.kafka).ensure_topics(made.topics.specs())
        try:
            yield made
        finally:
            made.close()


@contextmanager
def gatekeeper(place: World, section: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The shipped process in this world until the block ends."""
    probes = place.folder / "probes.jsonl"
    lines = [{"id": f"p{n:03}", "domain": "law", "question": f"Question {n}?"} for n in range(40)]
    probes.write_text("\n".join(json.dumps(line) for line in lines))
    config = place.folder / "gatekeeper.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "kafka": {"bootstrap_servers": place.kafka.bootstrap_servers},
                "redis": {"url": place.redis_url, "key": f"{place.prefix}routing", "timeout_ms": 500},
                "store": {"url": f"file://{place.folder}/store"},
                "keys": {"folder": str(place.folder / "keys")},
                "topics": {"prefix": place.prefix, "origin_partitions": 2},
                "state_folder": str(place.folder / "state"),
                "telemetry": {"port": 0},
                "gatekeeper": {**section, "probes": {"file": str(probes)}},
            }
        )
    )
    with (place.folder / "gatekeeper.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.gatekeeper", "--config", str(config)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)
