"""A model that really fails: its weights are damaged in memory, torch raises, and later they are put back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from services.inference.releases import Preparer
from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.inference.bench import POLICY, ModelBench, WorkerBench
from twinloop.kafka_jars.redis_server import FaultyRedis


@pytest.fixture
def bench(
    model: ModelBench, mock_kafka: KafkaUnderTest, own_redis: FaultyRedis, names: Names
) -> Iterator[WorkerBench]:
    found = WorkerBench(
        model, kafka=mock_kafka.settings, redis_url=own_redis.url, prefix=f"{names('breaker')}."
    )
    yield found
    found.close()


def test_damaged_adapters_of_one_release_do_not_touch_another_in_the_same_batch(model: ModelBench) -> None:
    healthy = model.ask(model.good, model.other)
    assert [each.error for each in healthy] == [None, None]
    model.break_adapters(model.other)
    for _ in range(POLICY.failures):
        good, other = model.ask(model.good, model.other)
        assert good.text == healthy[0].text
        assert other.error is not None
        assert other.error.kind == "model"
    good, other = model.ask(model.good, model.other)
    assert good.text == healthy[0].text
    assert other.error is not None
    assert other.error.kind == "unavailable"
    assert model.circuits("open") == 1

    model.mend_adapters(model.other)
    time.sleep(POLICY.open_s)
    assert [each.text for each in model.ask(model.good, model.other)] == [each.text for each in healthy]
    assert model.circuits("open") == 0


def test_while_the_model_fails_every_query_is_told_at_once_and_counts_as_an_error(bench: WorkerBench) -> None:
    assert {answer.error for answer in bench.ask(4)} == {None}
    bench.model.break_model()
    kinds = []
    while kinds.count("unavailable") < 20:
        kinds += [answer.error.kind for answer in bench.ask(4) if answer.error is not None]
    assert set(kinds) == {"model", "unavailable"}
    assert kinds[: POLICY.failures] == ["model"] * POLICY.failures
    assert len(kinds) == len(bench.sent) - 4

    bench.model.mend_model()
    time.sleep(POLICY.open_s)
    last = [bench.ask(1)[0], *bench.ask(4)]
    assert [answer.error for answer in last] == [None] * 5

    assert bench.lost_and_doubled() == ([], [])
    rows = {row.id: row.error for row in bench.outcomes()}
    assert sorted(rows) == sorted(bench.sent)
    assert [rows[name] for name in bench.sent[4:-5]] == kinds
    told = [answer for answer in bench.answers() if answer.error and answer.error.kind == "unavailable"]
    assert all(answer.receipt is None and answer.release == bench.model.other for answer in told)


def test_a_model_that_fails_in_a_warm_up_is_named_and_tried_again(model: ModelBench) -> None:
    model.break_model()
    preparer = Preparer(model.shelf, lambda: None)
    try:
        preparer.want((model.good,))
        assert not preparer.wait_for(model.good, 1.0)
        assert "its warm-up failed" in preparer.problems[model.good]
        model.mend_model()
        assert preparer.wait_for(model.good, 10.0)
        assert preparer.problems == {}
    finally:
        preparer.close()
