"""While Redis is silent the router holds; after `hold_max` it routes by the last known good state."""

from __future__ import annotations

import time
from collections.abc import Sequence

from schemas.queries import Query
from tests.integration.router.harness import RouterBench, questions
from twinloop.bus.records import Record
from twinloop.codec import decode
from twinloop.kafka_jars.redis_server import FaultyRedis
from twinloop.routing.stamp import read_stamp


def unconfirmed(records: Sequence[Record]) -> set[str]:
    return {decode(record, Query).id for record in records if read_stamp(record.headers).unconfirmed}


def wait_for_distinct(bench: RouterBench, count: int) -> list[Record]:
    """The mock cluster shows records of undone transactions, too: a query that was held once may be there twice."""
    return bench.wait_until(
        lambda: bench.records("queries.blue"),
        lambda found: len({decode(record, Query).id for record in found}) >= count,
    )


def test_a_missing_key_routes_nothing_until_it_is_there(bench: RouterBench) -> None:
    bench.ask(questions(5))
    bench.start_router()
    bench.wait_until(lambda: [bench.log_of()], lambda logs: "holding" in logs[0])
    time.sleep(0.2)
    assert not bench.records("queries.blue")

    bench.install(bench.state(1), "create")
    assert len(bench.wait_for("queries.blue", 5)) == 5


def test_queries_are_held_and_then_routed_unconfirmed(bench: RouterBench, own_redis: FaultyRedis) -> None:
    bench.install(bench.state(1), "create")
    bench.start_router(hold_max_ms=700)
    bench.ask(questions(5))
    bench.wait_for("queries.blue", 5)

    own_redis.kill()
    late = {query.id for query in questions(5, start=5)}
    bench.ask(questions(5, start=5))
    time.sleep(0.3)
    assert not unconfirmed(bench.records("queries.blue"))
    assert unconfirmed(wait_for_distinct(bench, 10)) == late

    own_redis.start()
    for number in range(10, 30):
        bench.ask(questions(1, start=number))
        if f"q-{number}" not in unconfirmed(wait_for_distinct(bench, number + 1)):
            return
    raise AssertionError("twenty queries in turn were routed unconfirmed although Redis is back")


def test_a_lower_epoch_after_a_data_loss_is_never_routed_by(bench: RouterBench) -> None:
    bench.install(bench.state(5), "create")
    bench.start_router(hold_max_ms=300)
    bench.ask(questions(1))
    bench.wait_for("queries.blue", 1)

    bench.overwrite(bench.state(4, active="green").model_dump_json().encode())
    bench.ask(questions(3, start=1))
    routed = bench.wait_for("queries.blue", 4)
    assert {read_stamp(record.headers).epoch for record in routed} == {5}
    assert not bench.records("queries.green")
