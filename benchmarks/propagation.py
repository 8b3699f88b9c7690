"""How soon a swap is in force everywhere: `python -m benchmarks.propagation [--quick] [--readers 1 10 100]`.

Every reader is a process of its own that reads the key with the shipped StateReader, signature check included, as often
as an idle router does (`idle_wait_ms`), or every 5 ms as a busy one would. The control polls every 50 ms. Time runs
from the start of the write to the moment the last reader has installed the epoch.
Writes `benchmarks/results/propagation.json`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from ctypes import c_int64
from pathlib import Path
from typing import Any

from benchmarks.routing_setup import Ground, ground, machine, percentile
from services.router.settings import RouterSection
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import Installed

RESULTS = Path(__file__).parent / "results" / "propagation.json"
CONTROL_MS = 50
BUSY_MS = 5
LIMIT_MS = 100.0
"""The 99th percentile must stay below."""
GOAL = 0.5
"""Most share of the control's median."""
READERS_A_CORE = 10
"""With more reader processes a core the scheduler is measured and not the reading; shown, not judged."""

_fork = multiprocessing.get_context("fork")


def read_along(
    under: Ground, interval_s: float, reader: int, applied: Any, epochs: int, is_over: Any
) -> None:
    """One reader process: notes for each epoch when it was installed."""
    state_reader = under.reader()
    chance = random.Random(reader)
    time.sleep(interval_s * chance.random())
    while not is_over.value:
        reading = state_reader.read(time.monotonic())
        if reading.is_new and reading.state is not None:
            applied[reader * epochs + reading.state.epoch] = time.monotonic_ns()
        time.sleep(interval_s)


def measure(under: Ground, *, readers: int, interval_ms: float, swaps: int) -> dict[str, Any]:
    """Milliseconds from the write's start to the last reader's install, over `swaps` swaps."""
    under = Ground(
        under.kafka,
        under.broker,
        under.redis.model_copy(update={"key": f"key-{readers}-{interval_ms}"}),
        under.signer,
        under.verify,
    )
    epochs = swaps + 2
    applied, is_over = _fork.RawArray(c_int64, readers * epochs), _fork.Value("b", 0)
    states = [under.state(epoch, is_swapped=epoch % 2 == 0) for epoch in range(1, epochs)]
    store = RedisRoutingStore(under.redis)
    store.install(states[0], mode="create")
    processes = [
        _fork.Process(
            target=read_along, args=(under, interval_ms / 1000, number, applied, epochs, is_over), daemon=True
        )
        for number in range(readers)
    ]
    for process in processes:
        process.start()
    _wait(applied, readers, epochs, 1)
    chance = random.Random(42)
    last: list[float] = []
    written: list[float] = []
    for epoch in range(2, epochs):
        time.sleep(chance.uniform(0.05, 0.12))
        started = time.monotonic_ns()
        outcome = store.install(states[epoch - 1], mode="advance")
        written.append((time.monotonic_ns() - started) / 1e6)
        assert isinstance(outcome, Installed)
        last.append((_wait(applied, readers, epochs, epoch) - started) / 1e6)
    is_over.value = 1
    for process in processes:
        process.join(10)
    store.close()
    return {
        "readers": readers,
        "interval_ms": interval_ms,
        "p50": percentile(last, 0.5),
        "p99": percentile(last, 0.99),
        "write_p50": percentile(written, 0.5),
        "write_p99": percentile(written, 0.99),
    }


def _wait(applied: Any, readers: int, epochs: int, epoch: int) -> int:
    """When the last reader installed the epoch."""
    deadline = time.monotonic() + 30
    while True:
        times = [applied[reader * epochs + epoch] for reader in range(readers)]
        if all(times):
            return int(max(times))
        if time.monotonic() > deadline:
            raise RuntimeError(f"{times.count(0)} of {readers} readers never saw epoch {epoch}")
        time.sleep(0.002)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer swaps and readers")
    parser.add_argument("--readers", type=int, nargs="+")
    arguments = parser.parse_args()
    judged = READERS_A_CORE * (os.cpu_count() or 1)
    counts = arguments.readers or ([1, 10] if arguments.quick else sorted({1, 10, judged, 100}))
    swaps = 30 if arguments.quick else 80
    idle_ms = RouterSection().idle_wait_ms
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder), broker=None) as under:
        for readers in counts:
            for interval_ms in (BUSY_MS, idle_ms, CONTROL_MS):
                row = measure(under, readers=readers, interval_ms=interval_ms, swaps=swaps)
                rows.append(row)
                print(
                    f"{readers:4d} readers every {interval_ms:2d} ms: last installed after p50 {row['p50']:.1f} ms, "
                    f"p99 {row['p99']:.1f} ms; the write itself p50 {row['write_p50']:.1f} ms"
                )
    judged = max([count for count in counts if count <= judged] or [min(counts)])
    most = {row["interval_ms"]: row for row in rows if row["readers"] == judged}
    share = most[idle_ms]["p50"] / most[CONTROL_MS]["p50"]
    print(
        f"{judged} idle routers against polling every {CONTROL_MS} ms: {share:.2f} (goal {GOAL}), "
        f"p99 {most[idle_ms]['p99']:.0f} ms (below {LIMIT_MS:.0f})"
    )
    RESULTS.parent.mkdir(exist_ok=True)
    found = {
        "machine": machine(),
        "swaps": swaps,
        "rows": rows,
        "judged_readers": judged,
        "share": share,
        "goal": GOAL,
        "limit_ms": LIMIT_MS,
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if share <= GOAL and most[idle_ms]["p99"] < LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
