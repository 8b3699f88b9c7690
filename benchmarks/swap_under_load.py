"""What a swap costs those who ask meanwhile, and whether it is clean: `python -m benchmarks.swap_under_load [--quick]`.

The shipped router and one worker a slot as processes over a real Kafka and Redis; users ask at a steady pace. Stretches
without and with swaps take turns for the latency; then swaps follow each other quickly, some across a frozen router.
A swap is the one write of a state signed by the gatekeeper's key; both releases are resident, as after a staging.
Writes `benchmarks/results/swap_under_load.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.result_file import write
from benchmarks.routing_setup import percentile
from schemas.event import Slot
from tests.fixtures.live_system import LiveSystem, Load, now_ms
from twinloop.routing.stamp import read_stamp
from twinloop.routing.store import Installed

PER_S = 20.0
SEED = 42
GOALS = {
    "p99_ratio": "<= 1.3, push for 1.1",
    "failures": "0",
    "stale": "0",
    "control_stale": "> 0",
    "wrong_release": "0",
    "swaps": ">= 200",
}


class Swaps:
    """The writer: swaps and remembers when each began and was acknowledged."""

    def __init__(self, live: LiveSystem) -> None:
        self._live = live
        self._epoch = 1
        live.install(live.state(1), "create")
        self.made: list[dict[str, Any]] = []

    def swap(self, *, frozen: bool = False) -> None:
        self._epoch += 1
        active: Slot = "green" if self._epoch % 2 == 0 else "blue"
        state = self._live.state(self._epoch, active=active)
        begun = now_ms()
        assert isinstance(self._live.install(state), Installed)
        self.made.append(
            {
                "epoch": self._epoch,
                "active": active,
                "begun": begun,
                "acknowledged": now_ms(),
                "frozen": frozen,
            }
        )


def measure(
    live: LiveSystem, *, rounds: int, stretch_s: float, quick_swaps: int, freezes: int
) -> dict[str, Any]:
    swaps = Swaps(live)
    router = live.start("router")
    live.wait_ready(router, live.start("inference", "blue-0"), live.start("inference", "green-0"))
    load = Load(live, per_s=PER_S, deadline_ms=60_000, seed=SEED)
    time.sleep(3.0)
    stretches = []
    for _ in range(rounds):
        for with_swaps in (False, True):
            begun = now_ms()
            until = time.monotonic() + stretch_s
            while time.monotonic() < until:
                time.sleep(stretch_s / 20)
                if with_swaps:
                    swaps.swap()
            stretches.append({"swaps": with_swaps, "from": begun, "to": now_ms()})
    for _ in range(quick_swaps):
        time.sleep(0.3)
        swaps.swap()
    at_work = 0
    for _ in range(freezes):
        at_work += router.freeze_at_work()
        swaps.swap(frozen=True)
        time.sleep(0.3)
        router.thaw()
        time.sleep(0.7)
    load.stop()
    found = live.settled(load)
    routed = [
        (query_id, stamp.epoch)
        for topic in ("queries.blue", "queries.green")
        for query_id, stamp in (
            (_ce_id(record.headers), read_stamp(record.headers)) for record in live.records(topic)
        )
        if stamp.hops == 0
    ]
    return {
        "stretches": stretches,
        "swaps": swaps.made,
        "frozen_at_work": at_work,
        "lost": found.lost,
        "doubled": found.doubled,
        "routed": [[load.sent[query_id], epoch] for query_id, epoch in routed],
        "answers": [
            [
                load.sent[answer.query_id],
                answer.answered_at,
                answer.slot,
                answer.epoch,
                answer.hops,
                answer.error.kind if answer.error else None,
            ]
            for _, answer in found.answers
        ],
    }


def _ce_id(headers: Any) -> str:
    return str(dict(headers)["ce_id"].decode())


def figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """From the samples alone; a worker sets `answered_at` before its last reading, so no grace is given."""
    waits: dict[bool, list[int]] = {False: [], True: []}
    for asked, answered, *_ in samples["answers"]:
        for stretch in samples["stretches"]:
            if stretch["from"] <= asked < stretch["to"]:
                waits[stretch["swaps"]].append(answered - asked)
    swaps = samples["swaps"]
    errors = sum(error is not None for *_, error in samples["answers"])
    return {
        "p99_ratio": percentile(waits[True], 0.99) / percentile(waits[False], 0.99),
        "failures": errors + len(samples["lost"]) + len(samples["doubled"]),
        "stale": sum(epoch < _acknowledged(swaps, asked) for asked, epoch in samples["routed"]),
        "control_stale": sum(hops > 0 for *_, hops, _ in samples["answers"]),
        "wrong_release": sum(_is_wrong(swaps, answer) for answer in samples["answers"]),
        "swaps": len(swaps),
        "frozen_at_work": samples["frozen_at_work"],
        "p99_ms_swaps": percentile(waits[True], 0.99),
        "p99_ms_none": percentile(waits[False], 0.99),
        "p50_ratio": percentile(waits[True], 0.5) / percentile(waits[False], 0.5),
        "answers": len(samples["answers"]),
    }


def _acknowledged(swaps: list[dict[str, Any]], at_ms: int) -> int:
    """The newest epoch that was acknowledged before a query was asked."""
    return max((swap["epoch"] for swap in swaps if swap["acknowledged"] < at_ms), default=0)


def _is_wrong(swaps: list[dict[str, Any]], answer: list[Any]) -> bool:
    _, answered, slot, _, _, error = answer
    if error is not None:
        return False
    before = [swap for swap in swaps if swap["acknowledged"] < answered]
    if not before:
        return False
    newest = before[-1]
    later = [swap for swap in swaps if swap["epoch"] == newest["epoch"] + 1]
    is_settled = not later or answered < later[0]["begun"]
    return is_settled and slot != newest["active"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter stretches")
    is_quick, load = parser.parse_args().quick, os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, LiveSystem(Path(folder)) as live:
        samples = (
            measure(live, rounds=1, stretch_s=15, quick_swaps=10, freezes=3)
            if is_quick
            else measure(live, rounds=3, stretch_s=40, quick_swaps=130, freezes=15)
        )
    found = write("swap_under_load", seeds=[SEED], samples=samples, goals=GOALS, load_before=load)
    return 0 if found["stale"] == found["wrong_release"] == found["failures"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
