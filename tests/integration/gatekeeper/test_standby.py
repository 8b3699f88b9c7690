"""A standby process takes over from a killed one within seconds: no decision is lost, none is made twice."""

from __future__ import annotations

import itertools
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import yaml

from schemas.gate_inputs import GateInput
from services.gatekeeper.replay import replay
from tests.integration.gatekeeper.conftest import FAST, write_probes
from tests.integration.gatekeeper.test_process import begin
from tests.integration.gatekeeper.test_webhooks import Receiver, hook
from tests.integration.gatekeeper.test_webhooks import receiver as receiver
from tests.integration.gatekeeper.world import World
from twinloop.codec import decode
from twinloop.embedded.valkey import free_port
from twinloop.settings_loader import merge

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
SESSION_S = 6.0


class Instance:
    """One gatekeeper process with its own place among the others."""

    def __init__(self, world: World, name: str, boot: str, receiver: Receiver) -> None:
        self.port = free_port()
        own = merge(
            {**FAST, "probes": {"file": str(write_probes(world))}},
            {"bootstrap_release": boot, "webhook": hook(receiver)},
        )
        config = world.folder / f"gatekeeper-{name}.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "instance": name,
                    "kafka": {"bootstrap_servers": world.kafka.bootstrap_servers},
                    "redis": {"url": world.redis_url, "key": f"{world.prefix}routing", "timeout_ms": 500},
                    "store": {"url": f"file://{world.folder}/store"},
                    "keys": {"folder": str(world.folder / "keys")},
                    "topics": {"prefix": world.prefix, "origin_partitions": 2},
                    "state_folder": str(world.folder / "state"),
                    "telemetry": {"port": self.port},
                    "gatekeeper": own,
                }
            )
        )
        self.process: subprocess.Popen[bytes] = begin(config)

    def says(self) -> str:
        """What it answers to whoever asks whether it is ready; nothing while it cannot be asked."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return str(error.read().decode())
        except OSError:
            return ""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def test_a_standby_goes_on_with_a_canary_whose_gatekeeper_was_killed(
    world: World, receiver: Receiver
) -> None:
    boot = world.release(1)
    instances = [Instance(world, "0", boot, receiver)]
    try:
        world.start(queries_per_s=400)
        world.wait_for_kind("genesis", timeout_s=60)
        instances.append(Instance(world, "1", boot, receiver))
        first, standby = instances
        world.wait_for(lambda: "epoch" in standby.says(), timeout_s=60)
        time.sleep(2.0)
        leader = next(each for each in instances if "leading" in each.says())
        successor = standby if leader is first else first
        assert "standing by" in successor.says()
        candidate = world.release(2, parent=boot)
        world.propose(candidate)
        world.wait_for_kind("canary", timeout_s=60)
        leader.kill()
        killed_at = time.monotonic()
        world.wait_for(lambda: "leading" in successor.says(), timeout_s=60)
        took_s = time.monotonic() - killed_at
        print(f"the standby led {took_s:.1f} s after the kill")
        assert took_s < SESSION_S + 9.0
        promoted = world.wait_for_kind("promote", timeout_s=90)
        assert promoted.state.active_release == candidate
        logged = world.decisions()
        world.wait_for(lambda: promoted.decision_id in receiver.taken)
    finally:
        for instance in instances:
            instance.kill()
    epochs = [decision.epoch for decision in logged]
    assert epochs == list(range(1, len(epochs) + 1))
    inputs = [(record.offset, decode(record, GateInput)) for record in world.read("gate-inputs")]
    until = logged[-1].input_offset
    known = itertools.takewhile(lambda each: each[0] <= until, inputs)
    assert replay(known, logged).mismatches == ()
    posted = list(dict.fromkeys(receiver.taken))
    assert [decision.decision_id for decision in logged] == posted[: len(logged)]
