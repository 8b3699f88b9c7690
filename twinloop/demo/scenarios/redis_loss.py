"""Redis is killed under traffic and comes back empty. Routers go on by what they know; the log puts the key back."""

from __future__ import annotations

import os
import signal
import time
from urllib.parse import urlsplit

from twinloop.demo.scenarios.drill import Drill
from twinloop.errors import ConfigError, Transient
from twinloop.kafka_jars.redis_server import start_redis
from twinloop.routing.redis_store import RedisRoutingStore

SILENT_S = 8.0
"""Longer than readers hold (2 s), so that they have to go on by the last state they know."""
USERS_PER_SECOND = 30.0


def play(drill: Drill) -> None:
    drill.log.wait(lambda each: each.kind == "genesis", what="the first decision", timeout_s=30)
    drill.traffic.per_second = USERS_PER_SECOND
    time.sleep(3)  # some traffic from before the fault
    before = drill.routing()
    if before is None:
        raise ConfigError("there is no routing state to lose")

    drill.step(f"kill -9 of Redis; it stays away for {SILENT_S:g} s")
    killed_at_ms = _kill(drill)
    time.sleep(SILENT_S)
    answers = [each for each in list(drill.traffic.answers.values()) if each.answered_at > killed_at_ms]
    unconfirmed = sum(1 for each in answers if each.unconfirmed and each.error is None)
    drill.find(
        "without Redis users are answered by the last known good state, and the answers say so",
        seen=f"{len(answers)} answers while it was away, {unconfirmed} of them marked unconfirmed",
        held=unconfirmed > 0,
    )

    drill.step("Redis starts again on the same port, empty")
    folder = drill.installation.plan.home.backend / "redis-after-the-loss"
    port = urlsplit(drill.connection.settings.redis.url).port
    drill.resources.enter_context(start_redis(folder, port=port or 0))
    took_s = drill.wait_until(lambda: _is_back(drill), what="the routing key to be put back", timeout_s=30)
    restore = drill.log.wait(
        lambda each: each.kind == "restore", what="the restore", timeout_s=30, after=before.epoch
    )
    drill.find(
        "the gatekeeper puts the state back from its log, under a higher epoch",
        seen=f"{took_s:.1f} s after the start: {restore.line}; epoch {before.epoch} -> {restore.epoch}",
        held=restore.epoch > before.epoch and restore.reason == "redis_missing",
    )
    after = drill.routing()
    drill.find(
        "the same release serves from the same slot",
        seen=f"{after.active} {after.active_release[:8]}" if after else "no routing state",
        held=after is not None
        and (after.active, after.releases) == (before.active, before.releases)
        and after.epoch == restore.epoch,
    )
    confirmed = _wait_for_confirmed(drill, restore.epoch)
    drill.find(
        "routers and workers act on it again",
        seen=f"an answer of epoch {restore.epoch}, confirmed, {confirmed:.1f} s later",
        held=True,
    )


def _kill(drill: Drill) -> int:
    """SIGKILL to the server's own process; returns when, in ms since 1970."""
    asking = RedisRoutingStore(drill.connection.settings.redis)
    try:
        server = asking.facts().process_id
    finally:
        asking.close()
    os.kill(server, signal.SIGKILL)
    return time.time_ns() // 1_000_000


def _is_back(drill: Drill) -> bool:
    try:
        return drill.routing() is not None
    except Transient:
        return False  # the connection to the killed server


def _wait_for_confirmed(drill: Drill, epoch: int) -> float:
    return drill.wait_until(
        lambda: any(
            each.epoch == epoch and not each.unconfirmed for each in list(drill.traffic.answers.values())
        ),
        what=f"a confirmed answer of epoch {epoch}",
        timeout_s=30,
    )
