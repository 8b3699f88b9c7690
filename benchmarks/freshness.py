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
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from ctypes import c_int64
from pathlib import Path
from typing import Any

from benchmarks.routing_setup import RULES, RULES_DIGEST, Ground, ground, machine, median, percentile
from schemas.queries import Query
from schemas.routing import RoutingState
from services.router.core.micro_batch import Arrival, Situation, decide
from services.router.core.overload import OverloadPolicy
from services.router.emission import RANDOM_BYTES, Emitter, Names
from services.router.parsing import parse_query
from twinloop.bus.records import Record
from twinloop.codec import encode
from twinloop.kafka_jars.redis_server import FaultyRedis, start_redis
from twinloop.routing.reader import StateReader
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.rules_book import RulesBook
from twinloop.topics import TopicCatalogue

RESULTS = Path(__file__).parent / "results" / "freshness.json"
BATCH = 64
GOAL = 0.8
"""Least share of the snapshot loop's rate, by processor time."""
_fork = multiprocessing.get_context("fork")


class Body:
    """The router's work on one batch, without Kafka."""

    def __init__(self, state: RoutingState) -> None:
        self._rules = RulesBook({RULES_DIGEST: RULES}.__getitem__)
        self._rules.prepare(state)
        self._emitter = Emitter(Names.of(TopicCatalogue.load()), router="bench", source="router/bench/0")
        self._records = [_record(number) for number in range(BATCH)]

    def route(self, reader: StateReader | None, snapshot: RoutingState) -> int | None:
        """Routes the batch by the snapshot, or by what the reader says; the epoch used, None where it holds."""
        if reader is not None:
            reader.begin()
        batch = [(record, parse_query(record, max_bytes=1 << 20)) for record in self._records]
        state: RoutingState | None = snapshot
        if reader is not None:
            state = reader.finish(time.monotonic()).state
        if state is None:
            return None
        now_ms = time.time_ns() // 1_000_000
        situation = Situation(
            state=state,
            chooser=self._rules.chooser,
            was_seen=lambda *_: False,
            now_ms=now_ms,
            policy=OverloadPolicy(),
        )
        decisions = decide([Arrival(record.partition, query) for record, query in batch], situation)
        random_bytes = os.urandom(RANDOM_BYTES * len(decisions.routes))
        for _ in self._emitter.emit(decisions, batch, now_ms=now_ms, random_bytes=random_bytes):
            pass
        return state.epoch


def _record(number: int) -> Record:
    query = Query(
        id=f"q-{number}",
        text="What is the notice period of contract Belvis?",
        asked_at=time.time_ns() // 1_000_000,
        subject=f"user-{number}",
        deadline_ms=600_000,
    )
    value, headers = encode(query, source="benchmark", event_id=query.id, at_ms=query.asked_at)
    return Record(
        "queries", number % 4, number, query.sticky_subject.encode(), value, headers, query.asked_at
    )


def cost(under: Ground, *, rounds: int, batches: int) -> dict[str, Any]:
    """The rate with a reading a batch, as a share of the rate with a snapshot; rounds are interleaved."""
    snapshot = RoutingState.model_validate_json(under.state(1))
    body, reader = Body(snapshot), under.reader()
    for _ in range(20):
        body.route(reader, snapshot)
    shares, walls, added = [], [], []
    for _ in range(rounds):
        without, without_wall = _time(body, None, snapshot, batches)
        fresh, fresh_wall = _time(body, reader, snapshot, batches)
        shares.append(without / fresh)
        walls.append(without_wall / fresh_wall)
        added.append((fresh - without) / batches / BATCH * 1e6)
    reader.close()
    return {"cpu_share": median(shares), "wall_share": median(walls), "added_cpu_us": median(added)}


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
    body = Body(RoutingState.model_validate_json(states[0]))
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
        "rounds": rounds,
        "decisions_while_silent": decided,
        "longest_read_ms": 1000 * longest,
        "fresh_again_ms_p50": percentile(recovered, 0.5),
        "fresh_again_ms_max": max(recovered),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    is_quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder), broker=None) as under:
        RedisRoutingStore(under.redis).install(under.state(1), mode="create")
        found: dict[str, Any] = {
            "machine": machine(),
            "goal": GOAL,
            "cost": cost(under, rounds=20 if is_quick else 80, batches=40),
            "staleness": staleness(under, swaps=100 if is_quick else 400),
            "silence": silence(Path(folder), under, rounds=3 if is_quick else 10),
        }
    for name in ("cost", "staleness", "silence"):
        print(name, json.dumps(found[name]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    holds = found["staleness"]["stale_batches"] == 0 and found["silence"]["decisions_while_silent"] == 0
    return 0 if holds and found["cost"]["cpu_share"] >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
