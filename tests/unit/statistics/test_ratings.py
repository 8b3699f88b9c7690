"""Thumbs as a guardrail: beyond the margin it stops, within it it is silent, and it never speaks for a promotion."""

from __future__ import annotations

import json

import numpy as np
import pytest

from twinloop.statistics.ratings import RatedArms, RatingRule, RatingState, rate, rating_row

RULE = RatingRule(margin=0.15, alpha=0.01, suspicion=0.05, min_rated=0)


def run(shadow: float, active: float, *, seed: int, windows: int = 60, keys: int = 5) -> str:
    """The guardrail's status after so many windows with that share of thumbs down."""
    chance = np.random.default_rng(seed)
    state = RatingState.begin(RULE)
    for number in range(windows):
        down_s = float((chance.random(keys) < shadow).sum())
        down_a = float((chance.random(9 * keys) < active).sum())
        counts = RatedArms(keys, down_s, 9 * keys, down_a)
        state = rate(RULE, state, partition=number % 4, start=float(number), epoch=4, counts=counts)
    return rating_row(RULE, state).status


def test_users_who_are_no_less_content_stop_nothing() -> None:
    found = [run(0.2, 0.2, seed=seed) for seed in range(40)]
    assert "breached" not in found


def test_at_the_very_margin_few_canaries_are_stopped() -> None:
    found = [run(0.35, 0.2, seed=seed, windows=40) for seed in range(60)]
    assert found.count("breached") <= 3


def test_users_who_are_clearly_less_content_stop_the_canary() -> None:
    assert [run(0.7, 0.2, seed=seed) for seed in range(10)] == ["breached"] * 10


@pytest.mark.parametrize("counts", [RatedArms(30, 30.0, 0, 0.0), RatedArms(0, 0.0, 300, 0.0)])
def test_ratings_of_one_arm_alone_are_no_evidence(counts: RatedArms) -> None:
    state = rate(RULE, RatingState.begin(RULE), partition=0, start=1.0, epoch=4, counts=counts)
    row = rating_row(RULE, state)
    assert (row.status, row.e) == ("open", 1.0)
    assert "not enough ratings" in row.line


def test_few_ratings_are_pooled_and_none_is_lost() -> None:
    state = RatingState.begin(RULE)
    for number in range(30):
        counts = RatedArms(1, 1.0, 0, 0.0) if number % 2 else RatedArms(0, 0.0, 3, 0.0)
        state = rate(RULE, state, partition=0, start=float(number), epoch=4, counts=counts)
    held = state.pending
    assert float(state.process.n_s[0]) + held.rated_s == 15
    assert float(state.process.n_a[0]) + held.rated_a == 45


def test_a_state_survives_being_written_and_read() -> None:
    state = rate(
        RULE, RatingState.begin(RULE), partition=2, start=1.0, epoch=4, counts=RatedArms(9, 3.0, 81, 9.0)
    )
    again = RatingState.from_json(json.loads(json.dumps(state.to_json())))
    assert again.to_json() == state.to_json()
