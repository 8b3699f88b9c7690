"""A release with which the model keeps failing is not asked any more, and is tried again after a while."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.core.circuit_breaker import (
    BreakerPolicy,
    Circuit,
    admitted,
    after_call,
    before_call,
    retry_after_s,
)

POLICY = BreakerPolicy(failures=3, open_s=10.0, probe_queries=2)


def after(*outcomes: bool, circuit: Circuit | None = None, now: float = 0.0) -> Circuit:
    found = circuit or Circuit()
    for succeeded in outcomes:
        found = after_call(POLICY, found, now, succeeded=succeeded)
    return found


def test_a_circuit_opens_at_the_limit_of_failures_in_a_row_and_not_before() -> None:
    assert after(False, False).state == "closed"
    assert after(False, False, False, now=7.0) == Circuit("open", 3, 7.0)


def test_a_success_forgets_the_failures_before_it() -> None:
    assert after(False, False, True) == Circuit()
    assert after(False, False, True, False, False).state == "closed"


def test_an_open_circuit_lets_nothing_through_until_its_time_is_over() -> None:
    circuit = after(False, False, False, now=100.0)
    for now, state, let_in in ((100.0, "open", 0), (109.9, "open", 0), (110.0, "half_open", 2)):
        seen = before_call(POLICY, circuit, now)
        assert (seen.state, admitted(POLICY, seen, 16)) == (state, let_in)


def test_a_probe_that_succeeds_closes_and_one_that_fails_opens_for_the_whole_time_again() -> None:
    probing = before_call(POLICY, after(False, False, False), 10.0)
    assert after(True, circuit=probing, now=10.5) == Circuit()
    reopened = after(False, circuit=probing, now=10.5)
    assert reopened == Circuit("open", 4, 10.5)
    assert before_call(POLICY, reopened, 20.4).state == "open"
    assert before_call(POLICY, reopened, 20.5).state == "half_open"


def test_a_probe_without_a_word_is_repeated() -> None:
    probing = before_call(POLICY, after(False, False, False), 10.0)
    assert before_call(POLICY, probing, 11.0) == probing
    assert admitted(POLICY, probing, 1) == 1


def test_whoever_is_refused_can_be_told_when_to_ask_again() -> None:
    circuit = after(False, False, False, now=100.0)
    assert retry_after_s(POLICY, circuit, 104.0) == 6.0
    assert retry_after_s(POLICY, before_call(POLICY, circuit, 110.0), 110.0) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=60), st.integers(1, 20))
def test_at_any_time_everything_is_let_in_or_a_probe_or_nothing(
    calls: list[tuple[bool, float]], waiting: int
) -> None:
    circuit, now, in_a_row = Circuit(), 0.0, 0
    for succeeded, pause in calls:
        now += pause
        circuit = before_call(POLICY, circuit, now)
        let_in = admitted(POLICY, circuit, waiting)
        assert let_in in (0, min(waiting, POLICY.probe_queries), waiting)
        if let_in == 0:
            assert now - circuit.opened_at < POLICY.open_s
            continue
        circuit = after_call(POLICY, circuit, now, succeeded=succeeded)
        in_a_row = 0 if succeeded else in_a_row + 1
        assert (circuit.state == "open") == (in_a_row >= POLICY.failures)
        assert circuit.is_untroubled == (in_a_row == 0)


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"open_s": 0}, {"probe_queries": 0}, {"pause_s": 1}])
def test_a_policy_that_could_never_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BreakerPolicy.model_validate(wrong)
