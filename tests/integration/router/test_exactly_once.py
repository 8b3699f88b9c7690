"""On a real Kafka: killed routers lose nothing and double nothing, and re-published ids stay dropped."""

from __future__ import annotations

import time

import pytest

from schemas.assignments import AssignmentBatch
from tests.integration.router.harness import RouterBench, ids, questions, seen_ids

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_kill_9_in_mid_stream_loses_nothing_and_doubles_nothing(real_bench: RouterBench) -> None:
    bench = real_bench
    bench.install(bench.canary_state(1), "create")
    process = bench.start_router(batch_max=20)
    asked = 0
    for _ in range(3):
        bench.ask(questions(400, start=asked))
        asked += 400
        least = asked - 350
        bench.wait_until(lambda: seen_ids(bench), lambda found: len(found) >= least, seconds=60)  # noqa: B023
        process.kill()
        process.wait(10)
        bench.ask(questions(100, start=asked - 400))
        process = bench.start_router(batch_max=20)
    expected = sorted(query.id for query in questions(asked))

    bench.wait_until(
        lambda: [*bench.records("queries.blue"), *bench.records("queries.green")],
        lambda found: len(found) >= asked,
        seconds=60,
    )
    time.sleep(0.5)
    assert bench.stop_router(process) == 0
    routed = ids([*bench.records("queries.blue"), *bench.records("queries.green")])
    assert sorted(routed) == expected
    rows = [row.id for batch in bench.events("assignments", AssignmentBatch) for row in batch.rows]
    assert sorted(rows) == expected
    assert sorted(seen_ids(bench)) == expected


def test_two_routers_share_the_work_and_hand_their_memory_over(real_bench: RouterBench) -> None:
    bench = real_bench
    bench.install(bench.state(1), "create")
    first, second = bench.start_router("0"), bench.start_router("1")
    bench.ask(questions(300))
    bench.wait_for("queries.blue", 300, seconds=60)
    assert bench.stop_router(first) == 0
    bench.ask(questions(400))
    bench.wait_for("queries.blue", 400, seconds=60)
    time.sleep(0.3)
    assert bench.stop_router(second) == 0
    assert sorted(ids(bench.records("queries.blue"))) == sorted(query.id for query in questions(400))
