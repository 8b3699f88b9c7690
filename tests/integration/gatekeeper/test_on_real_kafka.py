"""What the mock cluster cannot show: aborted transactions are not counted, and their markers stop nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from schemas.assignments import AssignmentBatch
from schemas.gate_inputs import GateInput, Tally
from schemas.outcomes import OutcomeBatch
from schemas.routing import RoutingState
from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World
from twinloop.codec import decode, encode

pytestmark = pytest.mark.kafka


def test_a_good_candidate_is_promoted_on_a_real_broker(world: World, start: Callable[..., Running]) -> None:
    start()
    world.start(queries_per_s=400)
    boot = world.wait_for_kind("genesis").state.active_release
    time.sleep(2.0)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    promoted = world.wait_for_kind("promote", timeout_s=90)
    assert promoted.state.active_release == candidate
    world.order("rollback")
    assert world.wait_for_kind("rollback").state.active_release == boot


def test_aborted_rows_are_not_counted_and_every_committed_row_counts_once(
    world: World, start: Callable[..., Running]
) -> None:
    start()
    world.start(queries_per_s=0)
    state = world.wait_for_kind("genesis").state
    producer = Producer(
        {**world.kafka.client_config(), "transactional.id": world.prefix, "transaction.timeout.ms": 10_000}
    )
    producer.init_transactions()
    number, committed = 0, 0
    for attempt in range(20):
        producer.begin_transaction()
        _write_rows(world, producer, state, range(number, number + 5))
        number += 5
        # Flushed first: the aborted rows stand in the log, only marked as such.
        producer.flush()
        if attempt % 3 == 0:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            committed += 5
        time.sleep(0.05)

    def counted() -> int:
        bodies = [decode(record, GateInput).body for record in world.read("gate-inputs")]
        return sum(body.window.total.active.queries for body in bodies if isinstance(body, Tally))

    world.wait_for(lambda: counted() >= committed, timeout_s=20)
    time.sleep(1.5)
    assert counted() == committed


def test_windows_close_while_nothing_but_markers_is_left_to_read(
    world: World, start: Callable[..., Running]
) -> None:
    """The last records of both topics are transaction markers: a partition read to its end must show as such."""
    start()
    world.start(queries_per_s=0)
    state = world.wait_for_kind("genesis").state
    producer = Producer({**world.kafka.client_config(), "transactional.id": f"{world.prefix}m"})
    producer.init_transactions()
    producer.begin_transaction()
    _write_rows(world, producer, state, range(10), with_outcomes=False)
    producer.commit_transaction()

    def missing() -> int:
        bodies = [decode(record, GateInput).body for record in world.read("gate-inputs")]
        return sum(body.window.total.active.missing for body in bodies if isinstance(body, Tally))

    world.wait_for(lambda: missing() == 10, timeout_s=20)


def _write_rows(
    world: World, producer: Producer, state: RoutingState, numbers: range, *, with_outcomes: bool = True
) -> None:
    rows = [world._ask(state, number) for number in numbers]
    batches = [AssignmentBatch(origin=0, router="router-0", rows=tuple(row for row, _ in rows))]
    topics = ["assignments"]
    if with_outcomes:
        outcomes = tuple(row for _, row in rows)
        batches.append(OutcomeBatch(origin=0, worker="w", toxicity_classifier="none 1", rows=outcomes))  # type: ignore[arg-type]
        topics.append("outcomes")
    for topic, batch in zip(topics, batches, strict=True):
        value, headers = encode(
            batch, source="test", event_id=f"{numbers.start}-{topic}", at_ms=world.now_ms()
        )
        producer.produce(world.topics.name(topic), value, key=b"0", partition=0, headers=list(headers))
