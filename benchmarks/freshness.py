"""What staying fresh costs and whether it holds: `python -m benchmarks.freshness [--quick]`.

1. Cost: the router's parse, decide and emit of batches of 64, with the shipped reading of the key for each batch
   (sent before parsing, received after it), against the same with one snapshot for ever.
2. Staleness: batches "consumed" while another process swaps; a batch routed by an epoch below one that was
   acknowledged before it was consumed counts as stale. There must be none.
3. Silence: Redis is frozen for a second, ten times; the longest read, decisions made meanwhile, time to be fresh again.
Writes `benchmarks/results/freshness.json`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from ctypes import c_int64
from pathlib import Path
from typing import Any

from benchmarks.result_file import write
from benchmarks.routing_body import Body
from benchmarks.routing_setup import Ground, ground, median
from schemas.routing import RoutingState
from twinloop.kafka_jars.redis_server import FaultyRedis, start_redis
from twinloop.routing.reader import StateReader
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore

BATCH = 64
GOAL = 0.8
"""Least share of the snapshot loop's rate, by processor time."""
GOALS = {
    "throughput_over_static_b64": ">= 0.8, push for 0.95",
    "stale_batches": "0",
    "decisions_while_silent": "0",
}
_fork = multiprocessing.get_context("fork")


def cost(under: Ground, *, rounds: int, batches: int) -> dict[str, Any]:
    """The rate with a reading a batch, as a share of the rate with a snapshot; rounds are interleaved."""
    snapshot = RoutingState.model_validate_json(under.state(1))
    body, reader = Body(snapshot, batch=BATCH), under.reader()
    for _ in range(20):
        body.route(reader, snapshot)
    taken: list[dict[str, float]] = []
    for _ in range(rounds):
        without, without_wall = _time(body, None, snapshot, batches)
        fresh, fresh_wall = _time(body, reader, snapshot, batches)
        taken.append(
            {
                "static_cpu_s": without,
                "fresh_cpu_s": fresh,
                "static_wall_s": without_wall,
                "fresh_wall_s": fresh_wall,
            }
        )
    reader.close()
    return {"batches": batches, "batch": BATCH, "rounds": taken}


def _time(
    body: Body, reader: StateReader | None, snapshot: RoutingState, batches: int
) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(batches):
        body.route(reader, snapshot)
    return time.process_time() - cpu, time.perf_counter() - wall


def swap_on(under: Ground, acknowledged: Any, states: Sequence[bytes], is_over: Any) -> None:
    """The writer process: one swap after the other, noting when each was acknowledged."""
    store = RedisRoutingStore(under.redis)
    for epoch, state in enumerate(states, 1):
        store.install(state, mode="create" if epoch == 1 else "advance")
        acknowledged[epoch] = time.monotonic_ns()
        time.sleep(0.01)
    is_over.value = 1


def staleness(under: Ground, *, swaps: int) -> dict[str, Any]:
    """Batches routed by an epoch older than one acknowledged before they were consumed."""
    under = Ground(
        under.kafka,
        under.broker,
        under.redis.model_copy(update={"key": "staleness"}),
        under.signer,
        under.verify,
    )
    states = [under.state(epoch, is_swapped=epoch % 2 == 0) for epoch in range(1, swaps + 2)]
    acknowledged, is_over = _fork.RawArray(c_int64, swaps + 3), _fork.Value("b", 0)
    body = Body(RoutingState.model_validate_json(states[0]), batch=BATCH)
    writer = _fork.Process(target=swap_on, args=(under, acknowledged, states, is_over), daemon=True)
    writer.start()
    reader, newest, stale, batches = under.reader(), 0, 0, 0
    snapshot = RoutingState.model_validate_json(states[0])
    while not is_over.value:
        consumed_at = time.monotonic_ns()
        while newest < swaps + 1 and 0 < acknowledged[newest + 1] < consumed_at:
            newest += 1
        epoch = body.route(reader, snapshot)
        batches += epoch is not None
        stale += epoch is not None and epoch < newest
    writer.join(10)
    reader.close()
    return {"swaps": swaps, "batches": batches, "queries": batches * BATCH, "stale_batches": stale}


def silence(folder: Path, under: Ground, *, rounds: int) -> dict[str, Any]:
    """Redis frozen for a second, `rounds` times."""
    server: FaultyRedis = start_redis(folder / "frozen")
    under = Ground(under.kafka, under.broker, RedisSettings(url=server.url), under.signer, under.verify)
    longest, recovered, decided = 0.0, [], 0
    try:
        RedisRoutingStore(under.redis).install(under.state(1), mode="create")
        reader = under.reader()
        assert reader.read(time.monotonic()).state is not None
        for _ in range(rounds):
            server.freeze()
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                started = time.monotonic()
                decided += reader.read(time.monotonic()).state is not None
                longest = max(longest, time.monotonic() - started)
                time.sleep(0.02)
            server.thaw()
            thawed = time.monotonic()
            while reader.read(time.monotonic()).state is None:
                time.sleep(0.02)
            recovered.append(1000 * (time.monotonic() - thawed))
        reader.close()
    finally:
        server.stop()
    return {
        "decisions_while_silent": decided,
        "longest_read_ms": 1000 * longest,
        "fresh_again_ms": recovered,
    }


def figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """From the samples alone."""
    rounds = samples["cost"]["rounds"]
    per_query = 1e6 / samples["cost"]["batches"] / samples["cost"]["batch"]
    silence = samples["silence"]
    return {
        "throughput_over_static_b64": median([each["static_cpu_s"] / each["fresh_cpu_s"] for each in rounds]),
        "throughput_over_static_b64_wall": median(
            [each["static_wall_s"] / each["fresh_wall_s"] for each in rounds]
        ),
        "added_cpu_us": median([(each["fresh_cpu_s"] - each["static_cpu_s"]) * per_query for each in rounds]),
        "stale_batches": samples["staleness"]["stale_batches"],
        "decisions_while_silent": silence["decisions_while_silent"],
        "longest_read_ms": silence["longest_read_ms"],
        "fresh_again_ms_max": max(silence["fresh_again_ms"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    is_quick, load = parser.parse_args().quick, os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder), broker=None) as under:
        RedisRoutingStore(under.redis).install(under.state(1), mode="create")
        samples = {
            "cost": cost(under, rounds=20 if is_quick else 80, batches=40),
            "staleness": staleness(under, swaps=100 if is_quick else 400),
            "silence": silence(Path(folder), under, rounds=3 if is_quick else 10),
        }
    found = write("freshness", seeds=[7], samples=samples, goals=GOALS, load_before=load)
    holds = found["stale_batches"] == 0 and found["decisions_while_silent"] == 0
    return 0 if holds and found["throughput_over_static_b64"] >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
