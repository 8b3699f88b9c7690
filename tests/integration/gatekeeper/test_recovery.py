"""What the gatekeeper does when it, a peer or Redis comes back different from what the log says."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World
from twinloop.canonical import canonical_json
from twinloop.routing.break_glass import rolled_back
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import Installed
from twinloop.signing import sign_document


def test_a_restart_goes_on_where_the_log_ends(world: World, start: Callable[..., Running]) -> None:
    first = start()
    world.start(queries_per_s=200)
    boot = world.wait_for_kind("genesis").state.active_release
    time.sleep(1.5)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    world.wait_for_kind("canary")
    first.stop()
    start()
    promoted = world.wait_for_kind("promote", timeout_s=60)
    assert promoted.state.active_release == candidate
    assert [decision.epoch for decision in world.decisions()] == list(range(1, len(world.decisions()) + 1))


def test_a_standby_takes_over_and_decides_nothing_twice(world: World, start: Callable[..., Running]) -> None:
    first = start()
    world.start(queries_per_s=100)
    boot = world.wait_for_kind("genesis").state.active_release
    standby = start(instance="1")
    world.wait_for(lambda: standby.worker.is_ready()[0])
    first.stop()
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    staged = world.wait_for_kind("stage")
    assert staged.release == candidate
    epochs = [decision.epoch for decision in world.decisions()]
    assert epochs == sorted(set(epochs))


def test_a_lost_routing_key_is_put_back_under_a_higher_epoch(
    world: World, start: Callable[..., Running]
) -> None:
    start()
    world.start(queries_per_s=20)
    genesis = world.wait_for_kind("genesis")
    time.sleep(0.5)
    with redis.Redis.from_url(world.redis_url) as client:
        client.delete(f"{world.prefix}routing")
    restored = world.wait_for_kind("restore")
    assert restored.reason == "redis_missing"
    assert restored.epoch > genesis.epoch
    assert restored.state.releases == genesis.state.releases


def test_a_forged_routing_key_is_overwritten(world: World, start: Callable[..., Running]) -> None:
    start()
    world.start(queries_per_s=20)
    genesis = world.wait_for_kind("genesis")
    time.sleep(0.5)
    forged = genesis.state.model_copy(update={"epoch": 40, "changed_by": "mallory"})
    assert isinstance(_client(world).install(canonical_json(forged), mode="advance"), Installed)
    restored = world.wait_for_kind("restore")
    assert restored.reason == "redis_forged"
    assert restored.epoch > 40


def test_a_break_glass_rollback_is_adopted_and_never_reverted(
    world: World, start: Callable[..., Running]
) -> None:
    start()
    world.start(queries_per_s=400)
    boot = world.wait_for_kind("genesis").state.active_release
    time.sleep(1.5)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    promoted = world.wait_for_kind("promote", timeout_s=60)
    by_hand = rolled_back(
        promoted.state.model_copy(update={"epoch": promoted.epoch + 4}),
        target=boot,
        rules=promoted.state.rules[boot],
        actor="ada",
        decision_id="break-glass-1",
        at_ms=world.now_ms(),
    )
    signed = sign_document(by_hand, world.signer("operator-1"))
    assert isinstance(_client(world).install(canonical_json(signed), mode="break-glass"), Installed)
    adopted = world.wait_for_kind("adopt")
    assert adopted.state.active_release == boot
    assert candidate in adopted.state.revoked
    assert adopted.epoch > signed.epoch
    time.sleep(1.0)
    routing = world.routing()
    assert routing is not None
    assert routing.active_release == boot


def _client(world: World) -> RedisRoutingStore:
    return RedisRoutingStore(RedisSettings(url=world.redis_url, key=f"{world.prefix}routing", timeout_ms=500))
