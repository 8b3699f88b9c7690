"""Redis killed, restarted empty, or replaced by a replica that missed a write: no acknowledged swap is lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.fixtures.live_system import LiveSystem, Load, wait_until
from twinloop.kafka_jars.redis_server import FaultyRedis, start_redis
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import Installed

KILLS = 12


def test_no_acknowledged_swap_is_lost_over_twelve_kills(
    own_redis: FaultyRedis, counted: Callable[..., None]
) -> None:
    settings = RedisSettings(url=own_redis.url, timeout_ms=1000)
    lost = 0
    for epoch in range(1, KILLS + 1):
        state = b'{"incarnation":"i","epoch":%d}' % epoch
        store = RedisRoutingStore(settings)
        outcome = store.install(state, mode="create" if epoch == 1 else "advance")
        assert outcome == Installed(epoch, durable=True)
        own_redis.kill()
        own_redis.start()
        store.close()
        lost += RedisRoutingStore(settings).read() != state
    counted(kills=KILLS, acknowledged_swaps_lost=lost)
    assert lost == 0


def begin(live: LiveSystem) -> Load:
    live.start("gatekeeper")
    live.start("router")
    live.start("inference", "blue-0")
    live.wait_ready()
    load = Load(live, per_s=15)
    time.sleep(2.0)
    return load


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_an_emptied_redis_gets_its_state_back_under_a_higher_epoch(
    live: LiveSystem, counted: Callable[..., None]
) -> None:
    load = begin(live)
    before = live.routing()
    assert before is not None
    live.redis_server.kill()
    _empty(live.folder / "redis")
    live.redis_server.start()
    emptied = time.monotonic()

    def is_restored() -> bool:
        found = live.routing()
        return found is not None and found.epoch > before.epoch

    wait_until(is_restored, seconds=30, what="the restore")
    restored_s = time.monotonic() - emptied
    time.sleep(1.0)
    load.stop()
    found, after = live.settled(load), live.routing()
    assert after is not None
    counted(
        restored_s=round(restored_s, 2), sent=found.sent, lost=len(found.lost), doubled=len(found.doubled)
    )
    assert after.releases == before.releases
    assert found.is_whole
    assert [decision.kind for decision in live.decisions()][-1] == "restore"


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_promoted_replica_that_missed_a_write_is_not_believed_and_is_mended(
    live: LiveSystem, counted: Callable[..., None], tmp_path: Path
) -> None:
    primary = live.redis_server
    replica = start_redis(tmp_path / "replica")
    try:
        with redis.Redis(port=replica.port) as client:
            client.replicaof("127.0.0.1", str(primary.port))
            load = begin(live)
            wait_until(
                lambda: client.get("twinloop:routing") is not None, seconds=20, what="the replica's copy"
            )
        old = live.routing()
        assert old is not None
        replica.freeze()
        waiting = RedisSettings(url=primary.url, timeout_ms=1000, wait_replicas=1, wait_ms=100)
        # The operator's own hand: a state the log does not know yet, as after a swap that only the primary has.
        order = live.roll_forward(old)
        outcome = live.install(order, "break-glass", redis=waiting)
        assert outcome == Installed(order.epoch, durable=False)
        wait_until(lambda: _epoch_of(live) >= order.epoch, seconds=20, what="the adoption")
        adopted = _epoch_of(live)
        primary.kill()
        replica.thaw()
        with redis.Redis(port=replica.port) as client:
            client.replicaof("NO", "ONE")
        live.proxy.retarget(replica.port)
        live.redis = RedisSettings(url=replica.url, timeout_ms=1000)
        wait_until(lambda: _epoch_of(live) > adopted, seconds=30, what="the restore on the promoted replica")
        time.sleep(1.0)
        load.stop()
        found = live.settled(load)
        epochs = [answer.epoch for _, answer in sorted(found.answers, key=lambda pair: pair[1].answered_at)]
        after = [epoch for epoch in epochs[-10:] if epoch is not None]
        counted(reported_durable=False, sent=found.sent, lost=len(found.lost), doubled=len(found.doubled))
        assert found.is_whole
        assert min(after) > order.epoch
    finally:
        replica.stop()


def _epoch_of(live: LiveSystem) -> int:
    found = live.routing()
    return found.epoch if found is not None else 0


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".log":
            path.unlink()
