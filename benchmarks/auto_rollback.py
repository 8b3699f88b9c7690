"""How long a release that turns bad goes on answering: `python -m benchmarks.auto_rollback [--quick]`.

A gatekeeper process with the shipped windows and rollback limits, real traffic in its topics, a release that was just
promoted. In the bake or after it, errors, slow answers or flagged answers begin; `ttr_s` runs from there to the last
bad answer anybody got. Writes `benchmarks/results/auto_rollback.json`.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gatekeeper_world import gatekeeper, world
from benchmarks.result_file import write
from benchmarks.routing_setup import best_broker, percentile
from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.event import DOMAINS
from schemas.outcomes import OutcomeBatch, OutcomeRow
from schemas.routing import RoutingState
from tests.integration.gatekeeper.world import PARTITIONS, World
from twinloop.routing.assignment import assign

GOALS = {"ttr_s_p99": "<= 60"}
PER_S = 100
FAULTS: dict[str, dict[str, float]] = {
    "error": {"error": 0.5},
    "p95": {"slow": 0.5},
    "toxicity": {"toxic": 0.3},
}
"""Share of the bad release's answers that fail, take 2.5 s, or are flagged."""
PHASES = ("bake", "steady")
SEED = 42
SHIPPED = Path("configs/gatekeeper.yaml")


def figures(samples: Mapping[str, Any]) -> dict[str, float]:
    """Seconds over all trials, and the worst by fault."""
    times = [trial["ttr_s"] for trial in samples["trials"]]
    worst = {
        f"ttr_s_max_{fault}": round(max(t["ttr_s"] for t in samples["trials"] if t["fault"] == fault), 2)
        for fault in sorted({trial["fault"] for trial in samples["trials"]})
    }
    return {
        "ttr_s_p99": round(percentile(times, 0.99), 2),
        "ttr_s_p50": round(percentile(times, 0.5), 2),
        **worst,
    }


@dataclass
class FaultyWorld(World):
    """Users who ask `PER_S` times a second, and one release that may be told to go wrong."""

    bad: str = ""
    fault: dict[str, float] = field(default_factory=dict)
    last_bad_ms: int = 0

    def _be_users(self, per_s: int) -> None:
        chance, numbers = random.Random(SEED), itertools.count()
        due: list[tuple[int, int, int, OutcomeRow]] = []
        while not self._stop.is_set():
            state = self.routing()
            if state is not None:
                for origin in range(PARTITIONS):
                    asked = [
                        self._question(state, next(numbers), chance) for _ in range(per_s // 10 // PARTITIONS)
                    ]
                    self.send(
                        "assignments",
                        AssignmentBatch(origin=origin, router="router-0", rows=tuple(a for a, _ in asked)),
                        partition=origin,
                    )
                    for _, outcome in asked:
                        heapq.heappush(due, (outcome.answered_at, next(numbers), origin, outcome))
            self._answer(due)
            self._stop.wait(0.1)

    def _answer(self, due: list[tuple[int, int, int, OutcomeRow]]) -> None:
        """Publish what is answered by now, and note the last answer that was bad."""
        now, ready = self.now_ms(), dict[int, list[OutcomeRow]]()
        while due and due[0][0] <= now:
            _, _, origin, row = heapq.heappop(due)
            ready.setdefault(origin, []).append(row)
            if row.release == self.bad and (row.error or row.toxic or row.latency_ms > 1000):
                self.last_bad_ms = max(self.last_bad_ms, row.answered_at)
        for origin, rows in ready.items():
            batch = OutcomeBatch(origin=origin, worker="w", toxicity_classifier="c 1", rows=tuple(rows))
            self.send("outcomes", batch, partition=origin)

    def _question(
        self, state: RoutingState, number: int, chance: random.Random
    ) -> tuple[AssignmentRow, OutcomeRow]:
        place, now = assign(state, f"user-{number}"), self.now_ms()
        fault = self.fault if place.release == self.bad else {}
        slow = chance.random() < fault.get("slow", 0.0)
        latency = 2500.0 if slow else 40.0 + 60 * chance.random()
        same: dict[str, Any] = {
            "id": f"q-{number}",
            "unit": place.unit,
            "slot": place.slot,
            "arm": place.arm,
            "release": place.release,
            "epoch": place.epoch,
            "purpose": "user",
            "domain": DOMAINS[number % 4],
            "assigned_at": now,
        }
        return AssignmentRow(bucket=place.bucket, deadline_at=now + 5000, **same), OutcomeRow(
            error="model" if chance.random() < fault.get("error", 0.0) else None,
            answered_at=now + round(latency),
            latency_ms=latency,
            toxic=chance.random() < fault.get("toxic", 0.0),
            **same,
        )


def trial(place: FaultyWorld, number: int, *, fault: str, phase: str, bake_s: float) -> dict[str, Any]:
    """Promote a fresh release by order, let it go wrong, wait until nobody gets a bad answer any more."""
    before = place.routing()
    assert before is not None
    bad = place.release(number, parent=before.active_release)
    place.propose(bad)
    place.wait_for(lambda: _phase(place) == "qa" and _shadow(place) == bad)
    deadline = time.monotonic() + 60
    while _active(place) != bad:
        assert time.monotonic() < deadline, "the ordered promotion did not come"
        place.order("promote", key_id="approver-1")
        time.sleep(1.0)
    time.sleep(bake_s + 8.0 if phase == "steady" else 3.0)
    place.last_bad_ms, place.bad = 0, bad
    onset = place.now_ms()
    place.fault = FAULTS[fault]
    place.wait_for(lambda: _active(place) != bad, timeout_s=120)
    time.sleep(4.0)
    found = {"fault": fault, "phase": phase, "ttr_s": (place.last_bad_ms - onset) / 1000}
    place.fault, place.bad = {}, ""
    return found


def _phase(place: World) -> str:
    state = place.routing()
    return "" if state is None else state.phase


def _active(place: World) -> str:
    state = place.routing()
    return "" if state is None else state.active_release


def _shadow(place: World) -> str:
    state = place.routing()
    return "" if state is None else state.shadow_release


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each fault once in each phase")
    arguments = parser.parse_args()
    load, trials, numbers = os.getloadavg(), list[dict[str, Any]](), itertools.count(2)
    rounds = 1 if arguments.quick else 4
    bakes = {"bake": 120.0, "steady": 1.0}
    shipped = yaml.safe_load(SHIPPED.read_text())["gatekeeper"]["policy"]
    for phase in PHASES:
        with tempfile.TemporaryDirectory() as folder, world(FaultyWorld, Path(folder)) as place:
            section = {
                "bootstrap_release": place.release(1),
                "policy": {
                    "qa": {"min_probes": 40},
                    "rollback": shipped["rollback"],
                    "promote": {"bake_s": bakes[phase], "force_approvers": 1},
                    "watch": {"rollback_cooldown_s": 1.0},
                },
            }
            with gatekeeper(place, section):
                place.start(queries_per_s=PER_S)
                place.wait_for_kind("genesis", timeout_s=60)
                for _ in range(rounds):
                    for fault in FAULTS:
                        trials.append(
                            trial(place, next(numbers), fault=fault, phase=phase, bake_s=bakes[phase])
                        )
                        print(trials[-1], flush=True)
    found = write(
        "auto_rollback",
        seeds=[SEED],
        samples={"trials": trials},
        goals=GOALS,
        load_before=load,
        broker=best_broker(),
        queries_per_s=PER_S,
        faults=FAULTS,
    )
    return 0 if found["ttr_s_p99"] <= 60 else 1


if __name__ == "__main__":
    raise SystemExit(main())
