"""Whose questions reach the model while it fails with one release and answers with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from services.inference.answering import AnswerEngine, Asked
from services.inference.core.answers import Produced
from services.inference.core.circuit_breaker import BreakerPolicy
from services.inference.guarded_engine import GuardedEngine
from services.inference.metrics import InferenceMetrics
from services.inference.releases import ReadyRelease
from twinloop.errors import NotReady

GOOD, BAD = "a" * 64, "b" * 64
POLICY = BreakerPolicy(failures=3, open_s=10.0, probe_queries=1)


@dataclass
class Engine:
    """Fails a whole call where one of its questions is for a release named in `failing`."""

    failing: dict[str, Exception] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)

    def answer(self, batch: Sequence[Asked]) -> list[Produced]:
        releases = [each.release.release_id for each in batch]
        self.calls.append(releases)
        for release in releases:
            if release in self.failing:
                raise self.failing[release]
        return [Produced(each.question.upper(), (), None, None) for each in batch]


@dataclass
class Bench:
    engine: Engine = field(default_factory=Engine)
    now: float = 0.0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.guarded = GuardedEngine(
            cast("AnswerEngine", self.engine),
            POLICY,
            metrics=InferenceMetrics(self.registry),
            slot="green",
            monotonic=lambda: self.now,
        )

    def ask(self, *releases: str) -> list[str]:
        """What became of one question for each release: its text, or the kind of its error."""
        batch = [Asked(f"q{n}", "law", _ready(release)) for n, release in enumerate(releases)]
        produced = self.guarded.answer(batch)
        return [each.error.kind if each.error else each.text or "" for each in produced]

    def sample(self, name: str, state: str) -> float:
        return self.registry.get_sample_value(name, {"slot": "green", "state": state}) or 0.0

    def circuits(self, state: str) -> float:
        return self.sample("twinloop_inference_circuits", state)

    def transitions(self, state: str) -> float:
        return self.sample("twinloop_inference_circuit_transitions_total", state)


def _ready(release: str) -> ReadyRelease:
    return ReadyRelease(release, *cast("Any", [None] * 5))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_sound_batch_is_one_call(bench: Bench) -> None:
    assert bench.ask(GOOD, BAD, GOOD) == ["Q0", "Q1", "Q2"]
    assert bench.engine.calls == [[GOOD, BAD, GOOD]]


def test_a_release_that_fails_costs_its_own_questions_alone(bench: Bench) -> None:
    bench.engine.failing = {BAD: RuntimeError("shapes")}
    assert bench.ask(GOOD, BAD, GOOD) == ["Q0", "model", "Q2"]
    assert bench.engine.calls == [[GOOD, BAD, GOOD], [GOOD, GOOD], [BAD]]
    assert bench.ask(GOOD, BAD) == ["Q0", "model"]
    assert bench.engine.calls[3:] == [[BAD], [GOOD]], "what failed lately is not asked among the others"


def test_an_open_circuit_answers_at_once_and_the_good_release_goes_on(bench: Bench) -> None:
    bench.engine.failing = {BAD: RuntimeError("shapes")}
    for _ in range(POLICY.failures):
        bench.ask(BAD)
    asked = len(bench.engine.calls)
    assert bench.ask(BAD, GOOD, BAD) == ["unavailable", "Q1", "unavailable"]
    assert bench.engine.calls[asked:] == [[GOOD]]
    assert (bench.circuits("open"), bench.transitions("open")) == (1, 1)


def test_a_half_open_circuit_tries_one_question_and_closes_when_it_is_answered(bench: Bench) -> None:
    bench.engine.failing = {BAD: RuntimeError("shapes")}
    for _ in range(POLICY.failures):
        bench.ask(BAD)
    bench.now += POLICY.open_s
    assert bench.ask(BAD, BAD, GOOD) == ["model", "unavailable", "Q2"]
    assert bench.ask(BAD) == ["unavailable"]
    bench.engine.failing = {}
    bench.now += POLICY.open_s
    assert bench.ask(BAD, BAD) == ["Q0", "unavailable"]
    assert bench.ask(BAD, BAD, GOOD) == ["Q0", "Q1", "Q2"]
    assert [bench.transitions(state) for state in ("open", "half_open", "closed")] == [2, 2, 1]
    assert [bench.circuits(state) for state in ("open", "half_open", "closed")] == [0, 0, 0]


def test_where_every_release_fails_each_circuit_opens_by_itself(bench: Bench) -> None:
    bench.engine.failing = {name: IndexError("no weights") for name in (GOOD, BAD)}
    for _ in range(POLICY.failures):
        assert bench.ask(GOOD, BAD) == ["model", "model"]
    assert bench.ask(GOOD, BAD) == ["unavailable", "unavailable"]
    assert bench.circuits("open") == 2


def test_a_release_nobody_asks_with_any_more_is_forgotten(bench: Bench) -> None:
    bench.engine.failing = {BAD: RuntimeError("shapes")}
    for _ in range(POLICY.failures):
        bench.ask(BAD)
    bench.guarded.keep_only({GOOD})
    assert bench.circuits("open") == 0
    assert not bench.guarded.circuits


def test_what_the_stream_has_to_hear_is_no_failure_of_the_model(bench: Bench) -> None:
    bench.engine.failing = {BAD: NotReady("adapters are not resident")}
    for _ in range(POLICY.failures + 1):
        with pytest.raises(NotReady):
            bench.ask(BAD)
    assert not bench.guarded.circuits
