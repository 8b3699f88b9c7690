"""Intervals of one rate: known values, coverage at every look, and the widths the traffic rule relies on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from twinloop.statistics.proportions import clopper_pearson, confidence_sequence, mcnemar, wilson


@pytest.mark.parametrize(("x", "n"), [(0, 10), (1, 10), (5, 200), (10, 10)])
def test_fixed_intervals_agree_with_scipy(x: int, n: int) -> None:
    exact = binomtest(x, n).proportion_ci(method="exact")
    score = binomtest(x, n).proportion_ci(method="wilson")
    assert [float(v) for v in clopper_pearson(x, n)] == pytest.approx([exact.low, exact.high], abs=1e-12)
    assert [float(v) for v in wilson(x, n)] == pytest.approx([score.low, score.high], abs=1e-12)


def test_nothing_seen_is_every_rate() -> None:
    for interval in (clopper_pearson, wilson, confidence_sequence):
        assert [float(v) for v in interval(0, 0)] == [0.0, 1.0]


def test_the_sequence_covers_the_truth_at_every_look() -> None:
    rng, runs, truth = np.random.default_rng(42), 300, 0.04
    x, missed = np.zeros(runs), np.zeros(runs, dtype=bool)
    for n in range(1, 101):
        x += rng.binomial(5, truth, runs)
        low, high = confidence_sequence(x, 5 * n)
        missed |= (low > truth) | (high < truth)
    assert missed.mean() <= 0.05 + 3 * np.sqrt(0.0475 / runs)


def test_the_sequence_is_never_narrow_at_once() -> None:
    low, high = confidence_sequence(np.zeros(4), np.array([1.0, 5.0, 92.0, 93.0]))
    assert ((high - low) <= 0.05).tolist() == [False, False, False, True]


def test_the_sequence_contains_its_estimate_and_narrows() -> None:
    n = np.array([10.0, 100.0, 1000.0, 10_000.0])
    low, high = confidence_sequence(0.1 * n, n)
    assert ((low < 0.1) & (high > 0.1)).all()
    assert (np.diff(high - low) < 0).all()


def test_mcnemar_is_the_exact_binomial_test_of_discordant_pairs() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 10) == pytest.approx(binomtest(3, 13).pvalue)
