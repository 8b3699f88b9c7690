"""Mirrored traffic in a running gatekeeper: copies before the first user, judged, measured, and never shown."""

from __future__ import annotations

import time
from collections.abc import Callable

from schemas.decisions import Decision, Progress
from schemas.gate_inputs import GateInput, Tally
from services.gatekeeper.replay import replay
from tests.integration.gatekeeper.conftest import FAST, Running
from tests.integration.gatekeeper.world import World
from twinloop.codec import decode
from twinloop.settings_loader import merge

MIRROR = {
    "basis_points": 2000,
    "min_units": 50,
    "min_s": 3.0,
    "max_s": 60.0,
    "hold_s": 2.0,
    "bake_basis_points": 1000,
}


def begin(world: World, start: Callable[..., Running]) -> tuple[Running, str]:
    """A gatekeeper that mirrors, steady traffic, and a candidate on its way."""
    told = {"mirror": MIRROR, "promote": {"bake_s": 6.0}, "watch": {"progress_s": 0.5}}
    running = start(policy=merge(FAST["policy"], told))
    world.start(queries_per_s=400)
    boot = world.wait_for_kind("genesis").state.active_release
    time.sleep(2.0)  # Steady traffic gives the gates their latency yardstick.
    return running, boot


def test_copies_come_before_the_first_user_and_to_the_old_slot_in_the_bake(
    world: World, start: Callable[..., Running]
) -> None:
    running, boot = begin(world, start)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    mirrored = world.wait_for_kind("mirror")
    assert mirrored.state.canary is None
    assert mirrored.state.mirror is not None
    assert mirrored.state.mirror.slot == mirrored.state.shadow
    coverage = coverage_seen(world, running, stage="mirroring")
    canary = world.wait_for_kind("canary")
    assert canary.reason == "mirror_passed"
    assert canary.evidence["mirror"]["copies_back"] >= 50  # type: ignore[index, call-overload, operator]
    assert coverage is not None
    assert coverage > 0.9
    promoted = world.wait_for_kind("promote", timeout_s=60)
    assert promoted.state.mirror is not None
    assert promoted.state.releases[promoted.state.mirror.slot] == boot
    baked = world.wait_for_kind("bake_end")
    assert baked.state.mirror is None
    assert baked.evidence["mirror"]["copies_back"] > 0  # type: ignore[index, call-overload, operator]
    inputs = [(record.offset, decode(record, GateInput)) for record in world.read("gate-inputs")]
    assert any(isinstance(each.body, Tally) and each.body.purpose == "mirror" for _, each in inputs)
    assert replay(inputs, world.decisions()).mismatches == ()


def test_a_candidate_that_fails_its_copies_never_meets_a_user(
    world: World, start: Callable[..., Running]
) -> None:
    _, boot = begin(world, start)
    candidate = world.release(2, parent=boot)
    world.copy_error_rates[candidate] = 0.5
    world.propose(candidate)
    aborted = world.wait_for_kind("abort")
    assert aborted.reason in ("mirror:error_margin", "mirror:early_stop")
    assert candidate in aborted.state.revoked
    assert all(decision.state.canary is None for decision in world.decisions())


def test_copies_that_nobody_answers_are_said_and_end_the_candidate_unblamed(
    world: World, start: Callable[..., Running]
) -> None:
    world.silent_copies = True
    _, boot = begin(world, start)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    aborted = world.wait_for_kind("abort", timeout_s=40)
    assert aborted.reason == "mirror:silent"
    assert aborted.evidence["feedback"] == "retrain"
    assert candidate not in aborted.state.revoked
    said = [
        decode(r, Progress) for r in world.read("decisions") if r.header("ce_type") != Decision.type.encode()
    ]
    assert any("mirror 20 %" in each.line for each in said)


def coverage_seen(world: World, running: Running, *, stage: str) -> float | None:
    """The gauge while the stage runs, once it has a value."""
    found: list[float] = []

    def look() -> bool:
        value = running.registry.get_sample_value("twinloop_mirror_coverage_ratio", {"stage": stage})
        found.extend([] if value is None else [value])
        return bool(found) or any(decision.kind == "canary" for decision in world.decisions())

    world.wait_for(look)
    return found[-1] if found else None
