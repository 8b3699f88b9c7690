"""One world and the gatekeepers that run in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from services.gatekeeper.__main__ import build_worker
from services.gatekeeper.settings import GatekeeperSettings
from services.gatekeeper.worker import GatekeeperWorker
from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.gatekeeper.world import PARTITIONS, World
from twinloop.embedded.valkey import EmbeddedValkey
from twinloop.process import StopSignal
from twinloop.settings_loader import merge
from twinloop.topics import TopicCatalogue

FAST: dict[str, Any] = {
    "tick_s": 0.1,
    "idle_tick_s": 0.3,
    "redis_check_s": 0.2,
    "readiness_repeat_s": 1.0,
    "windows": {"seconds": 0.5, "lateness_s": 0.3, "grace_s": 0.5},
    "policy": {
        "qa": {"min_probes": 40},
        "readiness": {"live_s": 5.0},
        "ramp": {"min_step_s": 0.5, "min_step_units": 5},
        "promote": {"bake_s": 2.0},
        "canary": {
            "warmup_units": 0,
            "min_shadow": 100,
            "ci_floor": 100,
            "baseline_min_units": 200,
            "max_shadow": 5000,
        },
    },
}


class Running:
    """One gatekeeper in a thread of this process."""

    def __init__(self, settings: GatekeeperSettings) -> None:
        self._stack = ExitStack()
        built = build_worker(settings, self._stack)
        self.worker: GatekeeperWorker = built.worker
        for feed in built.feeds:
            feed.start()
            self._stack.callback(feed.close)
        self.registry = built.registry
        self._stop = StopSignal()
        self.error: BaseException | None = None
        self._group = f"{settings.topics.prefix}gatekeeper"
        self._thread = threading.Thread(target=self._run, args=(settings,))
        self._thread.start()

    def _run(self, settings: GatekeeperSettings) -> None:
        try:
            self.worker.run(settings.kafka, self._stop, group=self._group)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self._stack.close()


def write_probes(world: World) -> Path:
    """Forty probes that the world's workers answer rightly."""
    probes = [
        {"id": f"p{n}", "question": f"say {n}", "expect": str(n), "needs_citation": n % 2 == 0}
        for n in range(40)
    ]
    file = world.folder / "probes.jsonl"
    file.write_text("\n".join(map(json.dumps, probes)))
    return file


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> KafkaUnderTest:
    """The mock cluster, or a real Kafka for tests marked with it."""
    is_real = request.node.get_closest_marker("kafka") is not None
    found: KafkaUnderTest = request.getfixturevalue("kafka" if is_real else "mock_kafka")
    return found


@pytest.fixture
def world(broker: KafkaUnderTest, names: Names, tmp_path: Path) -> Iterator[World]:
    prefix = f"{names('w')}."
    broker.create_topics(*TopicCatalogue.load(prefix=prefix, origin_partitions=PARTITIONS).specs())
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        world = World(broker.settings, valkey.url, tmp_path, prefix)
        yield world
        world.close()


@pytest.fixture
def start(world: World) -> Iterator[Callable[..., Running]]:
    """Starts gatekeepers and stops them at the end."""
    file = write_probes(world)
    boot = world.release(1)
    started: list[Running] = []

    def begin(*, instance: str = "0", **section: Any) -> Running:
        own = merge({**FAST, "bootstrap_release": boot, "probes": {"file": file}}, section)
        running = Running(GatekeeperSettings(**world.settings(**own), instance=instance))
        started.append(running)
        return running

    yield begin
    for running in started:
        running.stop()
        assert running.error is None, running.error
