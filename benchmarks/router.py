"""The router against a bare loop: `python -m benchmarks.router [--quick] [--broker kafka|mock]`.

Both loops read the same preloaded topic through the same TransactionalStream with the same settings and commit
interval. The bare one sends every record on as it is; the router does all it ships with: read and verify the state,
parse, drop duplicates, assign, choose the domain, stamp, write rows and seen ids; it decides the next batch while Kafka
commits the last. Interleaved rounds, median.
Then the router alone at half its rate: the time from having a batch to having produced its records. Then router and
bare loop in turn behind a user who asks at a steady pace: the time from publishing a query to reading it, committed.
For reference the same records through aiokafka and through faust (see `reference_loops`), in the same rounds.
The questions are those of the synthetic world; one in five names its domain. Writes `benchmarks/results/router.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks.reference_task import REFERENCES, Task, reference_rates
from benchmarks.result_file import write
from benchmarks.routing_setup import (
    Ground,
    best_broker,
    ground,
    make_router,
    make_topics,
    median,
    open_stream,
    percentile,
    publish,
)
from benchmarks.steady_user import PER_S, end_to_end
from services.router.__main__ import tune_interpreter
from services.router.settings import RouterSection
from twinloop.bus.records import Outgoing, Record
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.topics import TopicCatalogue

SECTION = RouterSection(batch_interval_ms=0)
SHIPPED = RouterSection()
REFERENCE_S = 2.5
"""Longest time a reference loop is measured in each round, in seconds."""
GOALS = {
    "throughput_over_bare": ">= 0.7, push for 0.9",
    "added_p99_ms": "none set; 0.94 ms is a Rust gateway's",
}
FLOOR = 0.3
"""Share by processor time below which the router has become slower: the exit status is 1."""


def bare_loop(under: Ground, topics: TopicCatalogue, group: str, count: int) -> tuple[float, float]:
    """Queries a second of wall time and of this process's processor time."""
    target = topics.name("queries.blue")
    with open_stream(under, topics, group, lambda _: None) as stream:
        first = _first_batch(lambda: stream.poll(SECTION.batch_max, 1.0))
        done, wall, cpu, committed_at = 0, time.perf_counter(), time.process_time(), time.monotonic()
        records = first
        while True:
            stream.send_all(_sent_on(records, target))
            done += len(records)
            if time.monotonic() - committed_at >= SECTION.commit_interval_ms / 1000 or done >= count:
                stream.commit()
                committed_at = time.monotonic()
            if done >= count:
                return done / (time.perf_counter() - wall), done / (time.process_time() - cpu)
            records = stream.poll(SECTION.batch_max, 0.01)


def _sent_on(records: Sequence[Record], target: str) -> list[Outgoing]:
    return [
        Outgoing(target, record.value, record.key, record.headers, record.partition) for record in records
    ]


def router_loop(
    under: Ground, topics: TopicCatalogue, group: str, count: int, section: RouterSection = SECTION
) -> tuple[float, float]:
    """The same for the shipped router."""
    worker, stream, metrics = make_router(under, topics, group, section)
    with stream:
        while not _routed(metrics):
            worker.turn()
        start, wall, cpu = _routed(metrics), time.perf_counter(), time.process_time()
        while _routed(metrics) < count:
            worker.turn()
        return (count - start) / (time.perf_counter() - wall), (count - start) / (time.process_time() - cpu)


def _first_batch(poll: Any) -> list[Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if records := poll():
            return list(records)
    raise RuntimeError("no query came within 60 s")


def _routed(metrics: Any) -> float:
    return float(
        sum(sample.value for sample in metrics.routed.collect()[0].samples if sample.name.endswith("_total"))
    )


def added_latency(
    under: Ground, topics: TopicCatalogue, group: str, *, batches: int, pause_s: float
) -> list[float]:
    """Milliseconds from having a small batch to having produced its records, at a gentle pace."""
    worker, stream, metrics = make_router(under, topics, group, SECTION.model_copy(update={"batch_max": 64}))
    times: list[float] = []
    observe = metrics.batch_seconds.observe

    def noted(seconds: float) -> None:
        times.append(seconds)
        observe(seconds)

    cast(Any, metrics.batch_seconds).observe = noted
    with stream:
        while len(times) < batches:
            worker.turn()
            time.sleep(pause_s)
    return [round(1000 * each, 4) for each in times[len(times) // 10 :]]


def reference_loops(under: Ground, topics: TopicCatalogue, number: int, count: int) -> dict[str, float]:
    """Queries a second of wall time and of processor time by each reference client."""
    rates: dict[str, float] = {}
    for client in REFERENCES:
        task = Task(
            kafka=under.kafka,
            source=topics.name("queries"),
            target=topics.name("queries.blue"),
            partitions=topics.partitions("queries"),
            group=f"{topics.settings.prefix}{client}-{number}",
            batch_max=SECTION.batch_max,
            commit_interval_s=SECTION.commit_interval_ms / 1000,
            count=count,
            limit_s=REFERENCE_S,
        )
        rates[client], rates[f"{client}_cpu"] = reference_rates(client, task)
    return rates


def router_end_to_end(under: Ground, *, count: int) -> list[float]:
    """Milliseconds from publishing a query to reading it, committed, behind the router with its shipped settings."""
    prefix = "pace-router."
    worker, stream, _ = make_router(under, make_topics(under, prefix), "router", SHIPPED)
    with stream:
        return end_to_end(under.kafka, prefix, worker.turn, count=count)


def bare_end_to_end(under: Ground, *, count: int) -> list[float]:
    """The same behind the bare loop, which waits and commits as the router does."""
    prefix = "pace-bare."
    topics = make_topics(under, prefix)
    target = topics.name("queries.blue")
    wait_s, interval_s = SHIPPED.idle_wait_ms / 1000, SHIPPED.commit_interval_ms / 1000
    due_at: float | None = None
    with open_stream(under, topics, "bare", lambda _: None) as stream:

        def turn() -> None:
            nonlocal due_at
            left = wait_s if due_at is None else min(wait_s, max(0.0, due_at - time.monotonic()))
            if records := stream.poll(SHIPPED.batch_max, left):
                due_at = due_at or time.monotonic() + interval_s
                stream.send_all(_sent_on(records, target))
            if due_at is not None and time.monotonic() >= due_at:
                stream.commit()
                due_at = None

        return end_to_end(under.kafka, prefix, turn, count=count)


def figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """From the samples alone; rates are compared round by round, by wall time and by processor time.

    What an older result has no samples of is left out.
    """
    rounds, batches = samples["rounds"], samples["batch_ms"]
    found: dict[str, Any] = {
        "throughput_over_bare": median([each["router"] / each["bare"] for each in rounds]),
        "added_p99_ms": percentile(batches, 0.99),
        "throughput_over_bare_cpu": median([each["router_cpu"] / each["bare_cpu"] for each in rounds]),
        "added_p50_ms": percentile(batches, 0.5),
        "routed_per_s": median([each["router"] for each in rounds]),
        "routed_per_cpu_s": median([each["router_cpu"] for each in rounds]),
    }
    for loop, prefix in (("router", ""), ("bare", "bare_")):
        if times := samples.get("end_to_end_ms", {}).get(loop):
            found[f"{prefix}end_to_end_p99_ms"] = percentile(times, 0.99)
            found[f"{prefix}end_to_end_p50_ms"] = percentile(times, 0.5)
    for client in REFERENCES:
        if client in rounds[0]:
            found[f"{client}_over_bare"] = median([each[client] / each["bare"] for each in rounds])
            found[f"{client}_over_bare_cpu"] = median(
                [each[f"{client}_cpu"] / each["bare_cpu"] for each in rounds]
            )
    return found


def main() -> int:
    arguments, load = _arguments(), os.getloadavg()
    count, rounds, paced = (20_000, 3, 600) if arguments.quick else (60_000, 5, 2000)
    tune_interpreter()
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder), broker=arguments.broker) as under:
        store = RedisRoutingStore(under.redis)
        store.install(under.state(1), mode="create")
        topics = make_topics(under, "bench.")
        publish(under, topics, count=count)
        rates: list[dict[str, float]] = []
        for number in range(rounds):
            bare, bare_cpu = bare_loop(under, topics, f"bare-{number}", count)
            router, router_cpu = router_loop(under, topics, f"router-{number}", count)
            references = reference_loops(under, topics, number, count)
            rates.append(
                {
                    "bare": bare,
                    "router": router,
                    "bare_cpu": bare_cpu,
                    "router_cpu": router_cpu,
                    **references,
                }
            )
            print(
                f"round {number}: bare {bare:,.0f}/s, router {router:,.0f}/s, ratio {router / bare:.2f}; "
                f"by processor time {bare_cpu:,.0f}/s, {router_cpu:,.0f}/s, ratio {router_cpu / bare_cpu:.2f}; "
                + ", ".join(
                    f"{client} {references[client]:,.0f}/s, ratio {references[client] / bare:.2f}"
                    for client in REFERENCES
                ),
                flush=True,
            )
        pause_s = 64 / (0.5 * median([rate["router"] for rate in rates]))
        batch_ms = added_latency(under, topics, "latency", batches=count // 64 // 2, pause_s=pause_s)
        end_to_end_ms = {
            "router": router_end_to_end(under, count=paced),
            "bare": bare_end_to_end(under, count=paced),
        }
        for loop, times in end_to_end_ms.items():
            print(
                f"end to end at {PER_S:.0f}/s, {loop}: p50 {percentile(times, 0.5):.1f} ms, "
                f"p99 {percentile(times, 0.99):.1f} ms"
            )
    found = write(
        "router",
        seeds=[7],
        samples={
            "queries": count,
            "rounds": rates,
            "batch_ms": batch_ms,
            "end_to_end_per_s": PER_S,
            "end_to_end_ms": end_to_end_ms,
        },
        goals=GOALS,
        load_before=load,
        broker=arguments.broker,
    )
    return 0 if found["throughput_over_bare_cpu"] >= FLOOR else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer queries and rounds")
    parser.add_argument("--broker", choices=("kafka", "mock"), default=best_broker())
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
