"""What the router's commit interval costs: `python -m benchmarks.commit_interval [--quick] [--broker kafka|mock]`.

A query is seen behind the router once its transaction is committed, so the interval is added to its time; each commit
costs a few round trips, so a short interval costs throughput. For every interval the shipped router, everything else
as shipped, routes what one user process asks at a steady pace: the time runs from the query's publishing until the
same process, reading committed records, has it from the slot's topic. Then it works off a full topic.
Writes `benchmarks/results/commit_interval.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_file import write
from benchmarks.router import router_loop
from benchmarks.routing_setup import (
    Ground,
    best_broker,
    ground,
    make_router,
    make_topics,
    percentile,
    publish,
)
from benchmarks.steady_user import PER_S, end_to_end
from services.router.__main__ import tune_interpreter
from services.router.settings import RouterSection
from twinloop.routing.redis_store import RedisRoutingStore

SHIPPED = RouterSection()
INTERVALS_MS = (5, SHIPPED.commit_interval_ms, 100, 400)
GOALS = {"p99_ms_shipped": "none set", "throughput_shipped_over_longest": "none set"}


def latencies(under: Ground, interval_ms: int, *, count: int) -> list[float]:
    """Milliseconds of `count` queries at a steady pace; the first tenth, while the group forms, is left out."""
    prefix = f"pace{interval_ms}."
    topics = make_topics(under, prefix)
    section = SHIPPED.model_copy(update={"commit_interval_ms": interval_ms})
    worker, stream, _ = make_router(under, topics, "router", section)
    with stream:
        return end_to_end(under.kafka, prefix, worker.turn, count=count)


def figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """From the samples alone, by interval in milliseconds."""
    times: Mapping[str, Sequence[float]] = samples["ms"]
    rates: Mapping[str, float] = samples["routed_per_s"]
    shipped, longest = str(samples["shipped_ms"]), max(rates, key=int)
    return {
        "p99_ms_shipped": percentile(times[shipped], 0.99),
        "throughput_shipped_over_longest": rates[shipped] / rates[longest],
        "p50_ms": {interval: percentile(each, 0.5) for interval, each in times.items()},
        "p99_ms": {interval: percentile(each, 0.99) for interval, each in times.items()},
        "routed_per_s": dict(rates),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer queries")
    parser.add_argument("--broker", choices=("kafka", "mock"), default=best_broker())
    arguments, load = parser.parse_args(), os.getloadavg()
    paced, full = (600, 20_000) if arguments.quick else (3000, 60_000)
    tune_interpreter()
    times: dict[str, list[float]] = {}
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder), broker=arguments.broker) as under:
        RedisRoutingStore(under.redis).install(under.state(1), mode="create")
        topics = make_topics(under, "bench.")
        publish(under, topics, count=full)
        for interval_ms in INTERVALS_MS:
            times[str(interval_ms)] = latencies(under, interval_ms, count=paced)
            section = SHIPPED.model_copy(update={"commit_interval_ms": interval_ms, "batch_interval_ms": 0})
            rates[str(interval_ms)] = round(router_loop(under, topics, f"r{interval_ms}", full, section)[0])
            print(
                f"every {interval_ms} ms: p50 {percentile(times[str(interval_ms)], 0.5):.1f} ms, p99 "
                f"{percentile(times[str(interval_ms)], 0.99):.1f} ms; {rates[str(interval_ms)]:,.0f} routed a second",
                flush=True,
            )
    write(
        "commit_interval",
        seeds=[7],
        samples={
            "shipped_ms": SHIPPED.commit_interval_ms,
            "per_s": PER_S,
            "ms": times,
            "routed_per_s": rates,
        },
        goals=GOALS,
        load_before=load,
        broker=arguments.broker,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
