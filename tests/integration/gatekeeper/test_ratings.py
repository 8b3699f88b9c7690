"""Users' thumbs in a running gatekeeper: read from `feedback`, counted by arm as they mature, and judged."""

from __future__ import annotations

import time
from collections.abc import Callable

from schemas.gate_inputs import FeedbackCounts, GateInput
from services.gatekeeper.replay import replay
from tests.integration.gatekeeper.conftest import FAST, Running
from tests.integration.gatekeeper.world import World
from twinloop.codec import decode
from twinloop.settings_loader import merge


def test_a_candidate_that_users_do_not_like_is_stopped_though_its_gates_are_well(
    world: World, start: Callable[..., Running]
) -> None:
    slow = {"ratings": {"window_s": 1.0, "maturity_s": 0.5}, "canary": {"min_shadow": 4000, "ci_width": 0.0}}
    start(policy=merge(FAST["policy"], slow))
    world.start(queries_per_s=100)
    boot = world.wait_for_kind("genesis").state.active_release
    time.sleep(1.0)
    candidate = world.release(2, parent=boot)
    world.down_rates = {boot: 0.1, candidate: 0.9}
    world.propose(candidate)
    world.wait_for_kind("canary")
    aborted = world.wait_for_kind("abort", timeout_s=60)
    assert aborted.reason == "ratings"
    assert aborted.evidence["feedback"] == "quarantine"
    inputs = [(record.offset, decode(record, GateInput)) for record in world.read("gate-inputs")]
    windows = [each.body.ratings for _, each in inputs if isinstance(each.body, FeedbackCounts)]
    rated = {counts.release for window in windows if window is not None for counts in window.counts}
    assert rated == {boot, candidate}
    assert replay(inputs, world.decisions()).mismatches == ()
