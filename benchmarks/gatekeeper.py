"""How much a gatekeeper takes: `python -m benchmarks.gatekeeper [--quick]`.

`outcomes_per_s`: a backlog of assignment and outcome records lies in the topics, then one gatekeeper process starts
and reads it through faust; the rows of each closed window over the time between the first and the last logged window.
`ms_per_window`: what the fold takes for one closed window in a canary with four domains; verdict, tick and, as
shipped, a progress record with intervals included. Writes `benchmarks/results/gatekeeper.json`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gatekeeper_world import gatekeeper, world
from benchmarks.result_file import write
from benchmarks.routing_setup import best_broker, percentile
from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.event import DOMAINS
from schemas.gate_inputs import GateInput, Tally
from schemas.outcomes import OutcomeBatch, OutcomeRow
from services.gatekeeper.core.fold import fold
from services.gatekeeper.core.state import JudgeState
from tests.histories.script import History
from tests.integration.gatekeeper.world import PARTITIONS, World
from twinloop.codec import decode

GOALS = {"outcomes_per_s": ">= 10000", "ms_per_window": "<= 10"}
BATCH = 200


def figures(samples: Mapping[str, Any]) -> dict[str, float]:
    """Median rate over the runs; 99th percentile of a window's cost."""
    rates = [run["rows"] / run["seconds"] for run in samples["backlogs"]]
    return {
        "outcomes_per_s": round(median(rates), 1),
        "ms_per_window": round(percentile(samples["window_ms"], 0.99), 3),
        "ms_per_window_p50": round(percentile(samples["window_ms"], 0.5), 3),
    }


def fill(place: World, release: str, *, seconds: int, per_s: int) -> int:
    """A backlog of users' queries, one window a second, in the recent past; returns the rows of `outcomes`."""
    start = place.now_ms() // 1000 * 1000 - (seconds + 60) * 1000
    rows = number = 0
    for second in range(seconds):
        for origin in range(PARTITIONS):
            for _ in range(per_s // PARTITIONS // BATCH):
                at = start + second * 1000
                same = [
                    {
                        "id": f"q-{number + n}",
                        "unit": f"{number + n:016x}",
                        "slot": "blue",
                        "arm": "active",
                        "release": release,
                        "epoch": 1,
                        "purpose": "user",
                        "domain": DOMAINS[n % 4],
                        "assigned_at": at + n,
                    }
                    for n in range(BATCH)
                ]
                number += BATCH
                assigned = tuple(AssignmentRow(bucket=5000, deadline_at=at + 2000, **row) for row in same)
                answered = tuple(
                    OutcomeRow(answered_at=at + 90, latency_ms=90.0 + n % 50, toxic=False, **row)
                    for n, row in enumerate(same)
                )
                # A record bears the time at which its rows were made: the gatekeeper closes windows by it.
                place.send(
                    "assignments",
                    AssignmentBatch(origin=origin, router="r", rows=assigned),
                    partition=origin,
                    at_ms=at + BATCH,
                )
                place.send(
                    "outcomes",
                    OutcomeBatch(origin=origin, worker="w", toxicity_classifier="c 1", rows=answered),
                    partition=origin,
                    at_ms=at + BATCH + 90,
                )
                rows += BATCH
        place.producer.flush(60)
    return rows


def backlog(folder: Path, *, seconds: int, per_s: int, broker: str) -> dict[str, float]:
    """One run: fill, start, wait until every row is in a logged window."""
    with world(World, folder, broker=broker) as place:
        release = place.release(1)
        rows = fill(place, release, seconds=seconds, per_s=per_s)
        with gatekeeper(place, {"bootstrap_release": release, "policy": {"qa": {"min_probes": 40}}}):
            deadline = time.monotonic() + 240
            while time.monotonic() < deadline:
                logged = [
                    (record.timestamp_ms, body.window.total.active.queries)
                    for record in place.read("gate-inputs")
                    if isinstance(body := decode(record, GateInput).body, Tally)
                    and body.window.total.active.queries
                ]
                if sum(count for _, count in logged) >= rows:
                    break
                time.sleep(2.0)
            else:
                raise RuntimeError(f"only {sum(c for _, c in logged)} of {rows} rows were tallied in time")
    first = min(at for at, _ in logged)
    counted = sum(count for at, count in logged if at > first)
    return {"rows": counted, "seconds": max((max(at for at, _ in logged) - first) / 1000, 1e-3)}


def window_costs(windows: int) -> list[float]:
    """Milliseconds of processor time of each canary window, tally and tick.

    The fold is pure, so all windows are folded three times over and each one's middle time counts: what else the
    machine does meanwhile is no cost of a window.
    """
    history = History(
        {
            "ramp": {"basis_points": [1000]},
            "canary": {"min_shadow": 20_000, "ci_width": 0},
            "watch": {"window_progress_s": 0.5, "interval_alpha": 0.05},
        }
    ).begin()
    history.warm()
    history.to_canary()
    begun, at = history.state, len(history.records)
    ends: list[int] = []
    for _ in range(windows):
        history.window(shadow=100, active=900, shadow_errors=4.0, active_errors=36.0)
        ends.append(len(history.records))
    passes = [_pass(begun, history.records, [at, *ends]) for _ in range(3)]
    return [median(times) for times in zip(*passes, strict=True)]


def _pass(state: JudgeState, records: list[GateInput], bounds: list[int]) -> list[float]:
    """Milliseconds of the records between each two bounds, folded in order."""
    found = []
    for start, end in itertools.pairwise(bounds):
        started = time.process_time()
        for offset in range(start, end):
            state, _ = fold(state, records[offset], offset)
        found.append((time.process_time() - started) * 1000)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short backlog")
    parser.add_argument("--broker", choices=("kafka", "mock"), default=best_broker())
    arguments = parser.parse_args()
    load = os.getloadavg()
    # The mock cluster keeps about 5 MB a partition: a longer backlog would lose its beginning.
    runs, seconds = (
        (1 if arguments.quick else 3),
        (5 if arguments.quick or arguments.broker == "mock" else 40),
    )
    samples: dict[str, Any] = {"window_ms": window_costs(40 if arguments.quick else 180), "backlogs": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            samples["backlogs"].append(
                backlog(Path(folder), seconds=seconds, per_s=4000, broker=arguments.broker)
            )
            print(samples["backlogs"][-1], flush=True)
    found = write(
        "gatekeeper",
        seeds=[],
        samples=samples,
        goals=GOALS,
        load_before=load,
        broker=arguments.broker,
        rows_a_record=BATCH,
    )
    return 0 if found["outcomes_per_s"] >= 10_000 and found["ms_per_window"] <= 10 else 1


if __name__ == "__main__":
    raise SystemExit(main())
