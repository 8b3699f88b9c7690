"""Genesis, candidate, examination, canary, promote, bake, rollback: on a broker, over Redis, with real signatures."""

from __future__ import annotations

import time
from collections.abc import Callable

from schemas.gate_inputs import GateInput
from services.gatekeeper.core.turn import decision_digest
from services.gatekeeper.replay import replay
from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World
from twinloop.codec import decode
from twinloop.signing import KeyRing, verify_document


def test_a_good_candidate_is_promoted_and_rolled_back_on_demand(
    world: World, start: Callable[..., Running]
) -> None:
    start()
    world.start(queries_per_s=400)
    genesis = world.wait_for_kind("genesis")
    assert genesis.state.releases["blue"] == genesis.state.releases["green"]
    time.sleep(2.0)  # Steady traffic gives the canary its latency yardstick.
    boot = genesis.state.active_release
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    promoted = world.wait_for_kind("promote", timeout_s=60)
    assert promoted.state.active_release == candidate
    assert promoted.state.previous == boot
    assert promoted.reason == "all_gates_cleared"
    nonce = world.order("rollback")
    back = world.wait_for_kind("rollback")
    assert back.state.active_release == boot
    assert back.state.revoked == (candidate,)
    assert back.evidence["command"] == nonce
    routing = world.routing()
    assert routing is not None
    assert routing == back.state
    _the_log_is_a_signed_chain(world)
    _the_log_replays(world)


def test_a_failing_candidate_never_meets_a_user(world: World, start: Callable[..., Running]) -> None:
    start()
    world.start(queries_per_s=100)
    boot = world.wait_for_kind("genesis").state.active_release
    candidate = world.release(2, parent=boot)
    world.error_rates[candidate] = 0.5
    world.propose(candidate)
    rejected = world.wait_for_kind("reject")
    assert rejected.reason.startswith("qa_")
    assert candidate in rejected.state.revoked
    assert all(decision.state.canary is None for decision in world.decisions())


def test_a_candidate_that_fails_users_is_stopped(world: World, start: Callable[..., Running]) -> None:
    start()
    world.start(queries_per_s=400)
    boot = world.wait_for_kind("genesis").state.active_release
    time.sleep(1.0)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    world.wait_for_kind("canary")
    world.error_rates[candidate] = 0.5
    aborted = world.wait_for_kind("abort", timeout_s=60)
    assert aborted.reason in ("error_margin", "early_stop")
    assert aborted.state.active_release == boot
    assert aborted.state.canary is None
    assert candidate in aborted.state.revoked


def test_an_order_without_a_valid_signature_changes_nothing(
    world: World, start: Callable[..., Running]
) -> None:
    start()
    world.start(queries_per_s=20)
    world.wait_for_kind("genesis")
    world.order("pause", key_id="trainer-1")
    world.wait_for(lambda: any(entry.result == "refused" for entry in world.audits()))
    assert [decision.kind for decision in world.decisions()] == ["genesis"]


def _the_log_is_a_signed_chain(world: World) -> None:
    ring = KeyRing.load(world.folder / "keys" / "public.yaml")
    before = None
    for number, decision in enumerate(world.decisions(), start=1):
        verify_document(decision.state, ring, role="gatekeeper")
        assert decision.epoch == number
        assert decision.previous == before
        before = decision_digest(decision)


def _the_log_replays(world: World) -> None:
    inputs = [(record.offset, decode(record, GateInput)) for record in world.read("gate-inputs")]
    assert replay(inputs, world.decisions()).mismatches == ()
