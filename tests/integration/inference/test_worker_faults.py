"""What a worker does with a batch it has polled when Redis, the store, a release or the bus fails under it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from services.inference.answering import Asked
from services.inference.core.answers import Produced
from services.inference.releases import ReadyRelease
from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.inference.bench import ModelBench, WorkerBench
from twinloop.errors import Transient
from twinloop.kafka_jars.redis_server import FaultyRedis

Open = Callable[..., WorkerBench]


@pytest.fixture
def opened(
    model: ModelBench, mock_kafka: KafkaUnderTest, own_redis: FaultyRedis, names: Names
) -> Iterator[Open]:
    benches: list[WorkerBench] = []

    def open_bench(**choices: bool | float) -> WorkerBench:
        prefix = f"{names('worker')}."
        bench = WorkerBench(
            model, kafka=mock_kafka.settings, redis_url=own_redis.url, prefix=prefix, **choices
        )  # type: ignore[arg-type]
        benches.append(bench)
        return bench

    yield open_bench
    for bench in benches:
        bench.close()


def during_the_next_batch(
    model: ModelBench, monkeypatch: pytest.MonkeyPatch, happening: Callable[[], object]
) -> None:
    """`happening` comes once, when the model has answered and nothing is committed yet."""
    real = model.guarded.answer
    pending = [happening]

    def answer(batch: Sequence[Asked]) -> list[Produced]:
        produced = real(batch)
        if batch and pending:
            pending.pop()()
        return produced

    monkeypatch.setattr(model.guarded, "answer", answer)


def test_a_batch_whose_turn_fails_between_poll_and_commit_comes_again(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = opened()
    failures = [Transient("the backlog cannot be looked at"), Transient("nor can it now")]
    real = bench.stream.waiting

    def waiting() -> int:
        if failures:
            raise failures.pop()
        return real()

    monkeypatch.setattr(bench.stream, "waiting", waiting)
    answers = bench.ask(40)
    assert {answer.error for answer in answers} == {None}
    assert not failures, "no batch was full: ask more"
    assert bench.lost_and_doubled() == ([], [])


def test_a_worker_that_knows_no_state_holds_what_it_polled_and_still_stops(opened: Open) -> None:
    bench = opened(is_installed=False)
    bench.publish(4)
    time.sleep(1.0)
    begun = time.monotonic()
    bench.close()
    assert time.monotonic() - begun < 15
    assert bench.answers() == []


def test_what_was_held_is_answered_when_a_state_is_there(opened: Open) -> None:
    bench = opened(is_installed=False)
    bench.publish(4)
    time.sleep(6.0)  # beyond the time for which a batch is held
    bench.install(bench.state)
    assert {answer.error for answer in bench.ask(1)} == {None}
    assert bench.lost_and_doubled() == ([], [])


def test_an_answer_made_while_redis_fell_silent_says_that_it_is_unconfirmed(
    opened: Open, model: ModelBench, own_redis: FaultyRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = opened()
    assert [answer.unconfirmed for answer in bench.ask(1)] == [False]
    during_the_next_batch(model, monkeypatch, own_redis.freeze)
    try:
        assert [answer.unconfirmed for answer in bench.ask(1)] == [True]
    finally:
        own_redis.thaw()
    assert bench.lost_and_doubled() == ([], [])


def test_a_release_revoked_while_the_model_answers_with_it_gives_no_answer(
    opened: Open, model: ModelBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = opened()
    bench.ask(1)
    after = bench.state.model_copy(
        update={
            "epoch": 2,
            "releases": {"blue": model.good, "green": model.good},
            "revoked": (model.other,),
        }
    )
    during_the_next_batch(model, monkeypatch, lambda: bench.install(after))
    answers = bench.ask(4)
    assert {answer.release for answer in answers} == {model.good}
    assert bench.lost_and_doubled() == ([], [])


def test_a_release_that_cannot_be_prepared_is_waited_for_once_for_a_whole_batch(opened: Open) -> None:
    bench = opened(prepare_timeout_s=1.0)
    nowhere = "f" * 64
    bench.state = bench.state.model_copy(
        update={
            "epoch": 2,
            "releases": {"blue": bench.model.good, "green": nowhere},
            "rules": {**bench.state.rules, nowhere: bench.state.rules[bench.model.good]},
        }
    )
    bench.install(bench.state)
    begun = time.monotonic()
    answers = bench.ask(8)
    assert time.monotonic() - begun < 6
    assert {answer.error.kind for answer in answers if answer.error} == {"unavailable"}
    assert len(answers) == 8


def test_letting_go_of_a_release_does_not_wait_for_one_that_is_being_prepared(model: ModelBench) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def warm(ready: ReadyRelease) -> None:
        if ready.release_id == model.other:
            begun.set()
            may_end.wait(20)

    shelf = model.new_shelf(warm)
    shelf.prepare(model.good)
    preparing = threading.Thread(target=shelf.prepare, args=(model.other,))
    preparing.start()
    assert begun.wait(20)
    letting_go = threading.Thread(target=shelf.keep_only, args=(set(),))
    letting_go.start()
    letting_go.join(5)
    was_waiting = letting_go.is_alive()
    may_end.set()
    preparing.join(20)
    assert not was_waiting
    assert set(shelf.ready) == {model.other}
    (adapter,) = set(shelf.ready[model.other].release.adapters.values())
    assert adapter in model.bank.resident()
