"""Copies beside users: windows of one time are judged together, and twins that are alike are left alone."""

from __future__ import annotations

import json

import numpy as np

from twinloop.statistics.gates import judge_harm
from twinloop.statistics.mirror import MirrorState, Suspect, join
from twinloop.statistics.policy import CanaryPolicy
from twinloop.statistics.tally import Arms, ArmTally, WindowTally

POLICY = CanaryPolicy(alpha_abort=0.01, domains=(), warmup_units=0)


def arm(units: int, errors: float, *, missing: int = 0) -> ArmTally:
    answered = round(units - errors)
    return ArmTally(queries=units + missing, units=units, errors=errors, missing=missing, answered=answered)


def users(second: int, errors: float, units: int = 180) -> WindowTally:
    return WindowTally(float(second), second + 1.0, 4, total=Arms(active=arm(units, errors)))


def copies(second: int, errors: float, units: int = 20, missing: int = 0) -> WindowTally:
    return WindowTally(float(second), second + 1.0, 4, total=Arms(shadow=arm(units, errors, missing=missing)))


def begun(suspect: Suspect = "copies") -> MirrorState:
    return MirrorState.begin(POLICY, suspect, now=0.0)


def test_a_window_waits_until_both_sides_have_passed_it() -> None:
    state = join(POLICY, begun().with_users(users(1, 0)), (1.0, 4), 2.0)
    assert state.memory.totals.windows == 1, "nobody was copied to in that second"
    state = begun().with_users(users(1, 0)).with_users(users(2, 0)).with_copies(copies(1, 0))
    state = join(POLICY, state, (1.0, 4), 3.0)
    assert (state.sent, len(state.users), len(state.copies)) == (20, 1, 0)


def test_copies_of_one_second_are_never_judged_by_users_of_another() -> None:
    """An outage that both sides see is in the same window, however late the copies' tally comes."""
    state = begun()
    for second in range(12):
        bad = 5 <= second < 9
        state = state.with_users(users(second, 108.0 if bad else 7.0))
    for second in range(12):
        bad = 5 <= second < 9
        state = state.with_copies(copies(second, 12.0 if bad else 1.0))
        state = join(POLICY, state, (float(second), 4), second + 30.0)
    assert judge_harm(POLICY, state.memory, subject="copies")[1] is None
    assert (state.users, state.copies) == ((), ())


def test_twins_that_are_alike_are_not_stopped_even_where_both_answer_the_same_questions() -> None:
    """Twenty stretches of half a minute at 4 % errors; in every second one the copies fail with their originals."""
    chance = np.random.default_rng(7)
    stopped = 0
    for run in range(20):
        state = begun()
        for second in range(30):
            of_users = chance.random(180) < 0.04
            of_copies = of_users[:20] if run % 2 else chance.random(20) < 0.04
            state = state.with_users(users(second, float(of_users.sum())))
            state = state.with_copies(copies(second, float(of_copies.sum())))
        state = join(POLICY, state, (30.0, 4), 31.0)
        stopped += judge_harm(POLICY, state.memory, subject="copies")[1] is not None
    assert stopped <= 1


def test_copies_that_fail_three_times_as_often_are_stopped() -> None:
    chance = np.random.default_rng(8)
    stopped = 0
    for _ in range(10):
        state = begun()
        for second in range(60):
            state = state.with_users(users(second, float((chance.random(180) < 0.04).sum())))
            state = state.with_copies(copies(second, float((chance.random(20) < 0.2).sum())))
        state = join(POLICY, state, (60.0, 4), 61.0)
        rows, harm = judge_harm(POLICY, state.memory, subject="copies")
        stopped += harm is not None
        assert all(row.kind == "abort" for row in rows)
    assert stopped == 10


def test_what_did_not_come_back_is_coverage_and_no_error() -> None:
    state = begun()
    for second in range(20):
        state = state.with_users(users(second, 7.0)).with_copies(copies(second, 0.0, units=10, missing=10))
    state = join(POLICY, state, (20.0, 4), 21.0)
    assert (state.sent, state.back, state.coverage) == (400, 200, 0.5)
    assert judge_harm(POLICY, state.memory, subject="copies")[1] is None


def test_a_state_survives_being_written_and_read() -> None:
    state = begun("users").with_users(users(1, 2.0)).with_users(users(2, 2.0)).with_copies(copies(1, 0.0))
    state = join(POLICY, state, (1.0, 4), 2.0)
    again = MirrorState.from_json(json.loads(json.dumps(state.to_json())))
    assert again.to_json() == state.to_json()
    more = copies(2, 1.0)
    assert join(POLICY, again.with_copies(more), (2.0, 4), 3.0).to_json() == (
        join(POLICY, state.with_copies(more), (2.0, 4), 3.0).to_json()
    )
