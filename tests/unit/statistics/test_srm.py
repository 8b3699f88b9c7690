"""The key-split test: a test martingale, quick on a real mismatch, silent on none."""

from __future__ import annotations

import json

import numpy as np
from scipy.stats import binom

from twinloop.statistics.srm import SrmState, count_keys, split_log_e


def test_its_mean_under_the_intended_share_is_one() -> None:
    n = 60
    k = np.arange(n + 1)
    mean = float(binom.pmf(k, n, 0.1) @ np.exp(split_log_e(k, n - k, 0.1)))
    assert abs(mean - 1.0) < 1e-9


def test_eight_percent_for_ten_is_found_within_ten_thousand_keys() -> None:
    rng = np.random.default_rng(42)
    shadow = np.cumsum(rng.binomial(100, 0.08, (100, 300)), axis=0)
    total = 100.0 * np.arange(1, 101)[:, None]
    assert (split_log_e(shadow, total - shadow, 0.1) >= np.log(1000)).any(axis=0).mean() >= 0.95


def test_the_intended_split_is_not_called_wrong() -> None:
    rng = np.random.default_rng(42)
    shadow = np.cumsum(rng.binomial(100, 0.1, (300, 500)), axis=0)
    total = 100.0 * np.arange(1, 301)[:, None]
    assert (split_log_e(shadow, total - shadow, 0.1) >= np.log(1000)).any(axis=0).mean() <= 0.005


def test_a_mismatch_in_either_direction_is_evidence() -> None:
    assert float(split_log_e(600, 9400, 0.1)) > 7 < float(split_log_e(1400, 8600, 0.1))


def test_ramp_steps_keep_their_own_counts_and_share_the_evidence() -> None:
    state = count_keys(SrmState(), epoch=1, canary_bp=100, shadow=40, active=960)
    first = state.log_e
    state = count_keys(state, epoch=2, canary_bp=1000, shadow=100, active=900)
    assert (state.keys_shadow, state.keys_active) == (100, 900)
    assert state.finished_log_e == first
    assert state.max_log_e >= first
    assert SrmState.from_json(json.loads(json.dumps(state.to_json()))) == state
