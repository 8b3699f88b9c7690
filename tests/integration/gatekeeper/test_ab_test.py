"""A/B test by command line: users are shared out, both reports come back, and the active release stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from schemas.gate_inputs import GateInput
from services.gatekeeper.replay import replay
from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World
from twinloop.cli.app import build_app
from twinloop.codec import decode

pytestmark = pytest.mark.timeout(180)


def write_config(world: World) -> Path:
    """What the command line needs to know of this world."""
    file = world.folder / "cli.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "kafka": {"bootstrap_servers": world.kafka.bootstrap_servers},
                "redis": {"url": world.redis_url, "key": f"{world.prefix}routing", "timeout_ms": 500},
                "store": {"url": f"file://{world.folder}/store"},
                "keys": {"folder": str(world.folder / "keys")},
                "topics": {"prefix": world.prefix, "origin_partitions": 2},
            }
        )
    )
    return file


def run(world: World, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(build_app(), [*words, "--config", str(write_config(world))])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_two_releases_that_served_are_compared_on_users(world: World, start: Callable[..., Running]) -> None:
    start()
    world.start(queries_per_s=400)
    boot = world.wait_for_kind("genesis").state.active_release
    assert run(world, "ab", "report")[0] == 1
    time.sleep(1.5)
    candidate = world.release(2, parent=boot)
    # Alike on purpose: against a faultless release a handful of errors is harm, and the test would end early.
    world.error_rates[boot] = world.error_rates[candidate] = 0.02
    world.propose(candidate)
    world.wait_for_kind("promote", timeout_s=60)
    world.wait_for_kind("bake_end")

    status, said = run(world, "ab", "start", "--share", "10", "--units", "300", "--reason", "a question")
    assert status == 0, said
    assert "A/B against" in said
    ended = world.wait_for_kind("ab_end", timeout_s=60)
    assert (ended.reason, ended.release) == ("ab_finished", boot)
    assert ended.state.active_release == candidate
    assert ended.state.canary is None

    status, said = run(world, "ab", "report")
    assert status == 0
    assert "not used for the decision" in said
    assert "valid at any moment of looking" in said
    assert "size 300 units, reached" in said
    report = json.loads(run(world, "ab", "report", "--json")[1])
    assert report["evidence"]["fixed_n"]["n_s"] >= 300
    assert report["evidence"]["fixed_n"]["x_a"] > 0
    inputs = [(record.offset, decode(record, GateInput)) for record in world.read("gate-inputs")]
    known = [each for each in inputs if each[0] <= ended.input_offset]
    assert replay(known, world.decisions()).mismatches == ()
