"""The gatekeeper as a process: killed in the middle of a canary, started again, stopped in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml

from tests.integration.gatekeeper.conftest import FAST, write_probes
from tests.integration.gatekeeper.world import World
from twinloop.embedded.valkey import free_port
from twinloop.settings_loader import merge


def begin(config: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "services.gatekeeper", "--config", str(config)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def test_a_killed_gatekeeper_goes_on_and_a_stopped_one_leaves_cleanly(world: World) -> None:
    port = free_port()
    own = merge(
        {**FAST, "probes": {"file": str(write_probes(world))}}, {"bootstrap_release": world.release(1)}
    )
    config = world.folder / "gatekeeper.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "kafka": {"bootstrap_servers": world.kafka.bootstrap_servers},
                "redis": {"url": world.redis_url, "key": f"{world.prefix}routing", "timeout_ms": 500},
                "store": {"url": f"file://{world.folder}/store"},
                "keys": {"folder": str(world.folder / "keys")},
                "topics": {"prefix": world.prefix, "origin_partitions": 2},
                "state_folder": str(world.folder / "state"),
                "telemetry": {"port": port},
                "gatekeeper": own,
            }
        )
    )
    process = begin(config)
    try:
        world.start(queries_per_s=300)
        boot = world.wait_for_kind("genesis", timeout_s=60).state.active_release
        time.sleep(1.5)
        candidate = world.release(2, parent=boot)
        world.propose(candidate)
        world.wait_for_kind("canary", timeout_s=60)
        process.kill()
        process.wait(10)
        process = begin(config)
        promoted = world.wait_for_kind("promote", timeout_s=90)
        assert promoted.state.active_release == candidate
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"twinloop_decided_epoch" in answer.read()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            assert b"leading at epoch" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(10)
    epochs = [decision.epoch for decision in world.decisions()]
    assert epochs == list(range(1, len(epochs) + 1))
