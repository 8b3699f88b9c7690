"""How soon a swap is in force everywhere: `python -m benchmarks.propagation [--quick] [--readers 1 10 100]`.

Every reader is a process of its own that runs the shipped state reader, signature check included, and the shipped
routing core on a stream of queries: a small batch as often as an idle router looks (`idle_wait_ms`), or every 5 ms as a
busy one does. The control looks every 50 ms. Time runs from the start of the write to the end of the last reader's
first batch routed by the new epoch.
Writes `benchmarks/results/propagation.json`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Mapping
from ctypes import c_int64
from pathlib import Path
from typing import Any

from benchmarks.result_file import write
from benchmarks.routing_body import Body
from benchmarks.routing_setup import Ground, ground, median, percentile
from schemas.routing import RoutingState
from services.router.settings import RouterSection
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import Installed

CONTROL_MS = 50
BUSY_MS = 5
QUERIES = 4
"""Queries in each reader's batch."""
LIMIT_MS = 100.0
"""The mission's floor for the 99th percentile; above it the exit status is 1."""
GOALS = {"p99_ms_100": "< 50, push for 10 with cores to spare", "p50_over_poll50": "<= 0.25"}

_fork = multiprocessing.get_context("fork")


def read_along(
    under: Ground, interval_s: float, reader: int, applied: Any, epochs: int, is_over: Any
) -> None:
    """One reader process: notes for each epoch when it was installed."""
    state_reader, newest = under.reader(), 0
    body = Body(RoutingState.model_validate_json(under.state(1)), batch=QUERIES)
    chance = random.Random(reader)
    time.sleep(interval_s * chance.random())
    while not is_over.value:
        epoch = body.route(state_reader, None)
        if epoch is not None and epoch > newest:
            newest = epoch
            applied[reader * epochs + epoch] = time.monotonic_ns()
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
        "last_ms": [round(each, 3) for each in last],
        "write_ms": [round(each, 3) for each in written],
    }


def look_cost(under: Ground, *, interval_s: float, looks: int = 100) -> list[float]:
    """Microseconds of processor time of one reader's looks, alone, each after a pause as an idle router makes it."""
    reader, taken = under.reader(), []
    RedisRoutingStore(under.redis).install(under.state(1), mode="create")
    body = Body(RoutingState.model_validate_json(under.state(1)), batch=QUERIES)
    for _ in range(looks):
        time.sleep(interval_s)
        started = time.process_time_ns()
        body.route(reader, None)
        taken.append((time.process_time_ns() - started) / 1000)
    reader.close()
    return taken[looks // 10 :]


def _wait(applied: Any, readers: int, epochs: int, epoch: int) -> int:
    """When the last reader installed the epoch."""
    deadline = time.monotonic() + 60
    while True:
        times = [applied[reader * epochs + epoch] for reader in range(readers)]
        if all(times):
            return int(max(times))
        if time.monotonic() > deadline:
            raise RuntimeError(f"{times.count(0)} of {readers} readers never saw epoch {epoch}")
        time.sleep(0.002)


def figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """From the samples alone: the rows of the largest number of readers that was measured, up to 100."""
    rows = {(row["readers"], row["interval_ms"]): row["last_ms"] for row in samples["rows"]}
    readers = max(readers for readers, _ in rows)
    shipped, control = rows[readers, samples["idle_ms"]], rows[readers, CONTROL_MS]
    few = rows[min(10, readers), samples["idle_ms"]]
    found = {
        f"p99_ms_{readers}": percentile(shipped, 0.99),
        "p50_over_poll50": percentile(shipped, 0.5) / percentile(control, 0.5),
        f"p50_ms_{readers}": percentile(shipped, 0.5),
        f"p99_ms_{min(10, readers)}": percentile(few, 0.99),
    }
    if "look_cpu_us" in samples:  # not in results of before it was measured
        # A look of every reader, shared out among the cores: sooner nobody can be done here.
        found[f"floor_ms_{readers}"] = readers * median(samples["look_cpu_us"]) / samples["cores"] / 1000
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer swaps and readers")
    parser.add_argument("--readers", type=int, nargs="+")
    arguments, load = parser.parse_args(), os.getloadavg()
    counts = arguments.readers or ([1, 10] if arguments.quick else [1, 10, 100])
    swaps = 30 if arguments.quick else 80
    idle_ms = RouterSection().idle_wait_ms
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder), broker=None) as under:
        looks = look_cost(under, interval_s=idle_ms / 1000)
        for readers in counts:
            for interval_ms in sorted({BUSY_MS, idle_ms, CONTROL_MS}):
                row = measure(under, readers=readers, interval_ms=interval_ms, swaps=swaps)
                rows.append(row)
                last, written = row["last_ms"], row["write_ms"]
                print(
                    f"{readers:4d} readers every {interval_ms:2d} ms: last in force after p50 "
                    f"{percentile(last, 0.5):.1f} ms, p99 {percentile(last, 0.99):.1f} ms; the write itself p50 "
                    f"{percentile(written, 0.5):.1f} ms"
                )
    samples = {
        "swaps": swaps,
        "idle_ms": idle_ms,
        "look_cpu_us": looks,
        "cores": os.cpu_count() or 1,
        "rows": rows,
    }
    found = write("propagation", seeds=[42], samples=samples, goals=GOALS, load_before=load)
    return 0 if found[f"p99_ms_{max(counts)}"] < LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
