"""Swaps while a router is frozen, or Redis cannot be reached: no answer from a release that no longer serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from schemas.event import Slot
from tests.fixtures.live_system import Accounting, LiveSystem, Load, now_ms
from tests.fixtures.tcp_proxy import Mode
from twinloop.routing.store import Installed

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.alone, pytest.mark.faults]


@dataclass(frozen=True)
class Swap:
    """When the write began and was acknowledged, and who serves since."""

    begun_ms: int
    acknowledged_ms: int
    active: Slot
    epoch: int


def swap(live: LiveSystem, epoch: int) -> Swap:
    """Lets the slots trade roles in one write, past the proxy."""
    active: Slot = "green" if epoch % 2 == 0 else "blue"
    begun = now_ms()
    assert isinstance(live.install(live.state(epoch, active=active)), Installed)
    return Swap(begun, now_ms(), active, epoch)


def stale_answers(found: Accounting, swaps: Sequence[Swap]) -> list[str]:
    """Queries answered after a swap was acknowledged, and before the next began, by the slot it put aside.

    A worker reads the state once more after it has set `answered_at`: so no grace is given.
    """
    bounds = [*swaps, None]
    stale = []
    for this, following in pairwise(bounds):
        assert this is not None
        until = following.begun_ms if following is not None else float("inf")
        for _, answer in found.answers:
            is_within = this.acknowledged_ms < answer.answered_at < until
            if is_within and answer.error is None and answer.slot != this.active and not answer.unconfirmed:
                stale.append(answer.query_id)
    return stale


def start(live: LiveSystem) -> None:
    live.install(live.state(1), "create")
    services = [live.start("router"), live.start("inference", "blue-0"), live.start("inference", "green-0")]
    live.wait_ready(*services)


@pytest.mark.timeout(600)
def test_a_router_frozen_across_a_swap_never_gets_an_old_answer_out(
    live: LiveSystem, counted: Callable[..., None]
) -> None:
    start(live)
    router = live.services["router-0"]
    load = Load(live, per_s=40)
    time.sleep(1.0)
    swaps, at_work = [], 0
    for epoch in range(2, 17):
        at_work += router.freeze_at_work()
        swaps.append(swap(live, epoch))
        time.sleep(0.3)
        router.thaw()
        time.sleep(0.7)
    load.stop()
    found = live.settled(load)
    stale = stale_answers(found, swaps)
    forwarded = sum(answer.hops > 0 for _, answer in found.answers)
    counted(
        swaps=len(swaps),
        frozen_at_work=at_work,
        sent=found.sent,
        lost=len(found.lost),
        doubled=len(found.doubled),
        stale=len(stale),
        forwarded=forwarded,
        ended=found.kinds,
    )
    assert found.is_whole
    assert stale == []
    # The control: so many would have been answered by the wrong slot without the fence.
    assert forwarded > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["reset", "blackhole", "half-open"])
def test_a_cut_link_to_redis_holds_and_never_serves_an_old_epoch(
    live: LiveSystem, counted: Callable[..., None], mode: Mode
) -> None:
    start(live)
    load = Load(live, per_s=20)
    time.sleep(1.0)
    swaps = []
    for epoch in range(2, 6):
        live.proxy.cut(mode)
        time.sleep(0.3)
        swaps.append(swap(live, epoch))
        time.sleep(1.0)
        live.proxy.cut("pass")
        time.sleep(1.5)
    load.stop()
    found = live.settled(load)
    stale = stale_answers(found, swaps)
    counted(
        link=mode, cuts=4, sent=found.sent, lost=len(found.lost), doubled=len(found.doubled), stale=len(stale),
        ended=found.kinds,
    )  # fmt: skip
    assert found.is_whole
    assert stale == []
    assert set(found.kinds) == {"answered"}
