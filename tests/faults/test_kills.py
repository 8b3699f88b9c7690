"""`kill -9` of every service under load: each query ends once, whatever was open when its process died."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.fixtures.live_system import LiveSystem, Load

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.alone]
SERVICES = ("router", "inference", "gatekeeper", "trainer")


def kill_rounds(live: LiveSystem, *, rounds: int, per_s: float) -> dict[str, object]:
    """Kills each service once a round while users ask; every second kill, Kafka gets what was asked meanwhile."""
    started = time.monotonic()
    services = {
        "gatekeeper": live.start("gatekeeper"),
        "router": live.start("router"),
        "inference": live.start("inference", "blue-0"),
        "trainer": live.start("trainer"),
    }
    live.wait_ready(services["router"], services["inference"], services["gatekeeper"])
    load = Load(live, per_s=per_s)
    time.sleep(1.0)
    at_work = dict.fromkeys(SERVICES, 0)
    for _ in range(rounds):
        for name in SERVICES:
            service = services[name]
            if name in ("router", "inference"):
                at_work[name] += service.freeze_at_work()
            service.kill()
            service.start()
        services["router"].wait_ready()
        services["inference"].wait_ready()
        time.sleep(0.5)
    load.stop()
    found = live.settled(load, timeout_s=90)
    return {
        "kills_each": rounds,
        "router_at_work": at_work["router"],
        "inference_at_work": at_work["inference"],
        "sent": found.sent,
        "lost": len(found.lost),
        "doubled": len(found.doubled),
        "strange": len(found.strange),
        "ended": found.kinds,
        "seconds": round(time.monotonic() - started, 1),
    }


@pytest.mark.timeout(300)
def test_three_kills_of_each_service_lose_and_double_no_query(
    live: LiveSystem, counted: Callable[..., None]
) -> None:
    found = kill_rounds(live, rounds=3, per_s=15)
    counted(**found)
    assert (found["lost"], found["doubled"], found["strange"]) == (0, 0, 0)


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_twenty_kills_of_each_service_lose_and_double_no_query(
    live: LiveSystem, counted: Callable[..., None]
) -> None:
    found = kill_rounds(live, rounds=20, per_s=15)
    counted(**found)
    assert (found["lost"], found["doubled"], found["strange"]) == (0, 0, 0)
    # A kill of an idle process proves little.
    assert int(str(found["router_at_work"])) >= 15
    assert int(str(found["inference_at_work"])) >= 15
