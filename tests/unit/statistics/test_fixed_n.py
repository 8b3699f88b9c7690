"""The classical report: right numbers, the same every time, and a label that keeps it out of decisions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, fisher_exact

from twinloop.statistics import latency
from twinloop.statistics.fixed_n import LABEL, FixedNReport, report


def histogram(rng: np.random.Generator, shift: float = 0.0) -> latency.Floats:
    return latency.dense((int(i), 1.0) for i in latency.bins_of(rng.lognormal(5.3, 0.5, 600) + shift))


def made(x_s: int = 60, x_a: int = 360, *, shift: float = 0.0, seed: int = 1) -> FixedNReport:
    rng = np.random.default_rng(seed)
    shadow, active = histogram(rng, shift), histogram(rng)
    return report(n_s=1000, x_s=x_s, n_a=9000, x_a=x_a, latency_s=shadow, latency_a=active)


def test_the_report_is_labelled_and_repeats() -> None:
    assert made() == made()
    assert made().label == LABEL == "not used for the decision"
    assert LABEL in made().line


def test_its_p_values_are_those_of_scipy() -> None:
    table = [[60, 940], [360, 8640]]
    assert made().fisher_p == pytest.approx(fisher_exact(table).pvalue, rel=1e-5)
    assert made().chi2_p == pytest.approx(chi2_contingency(table).pvalue, rel=1e-5)


def test_the_exact_bootstrap_agrees_with_resampling() -> None:
    rng = np.random.default_rng(5)
    shadow, active = histogram(rng, 80.0), histogram(rng)
    found = report(n_s=600, x_s=0, n_a=600, x_a=0, latency_s=shadow, latency_a=active)

    def resampled(weights: latency.Floats) -> latency.Floats:
        total = round(float(weights.sum()))
        draws = rng.multinomial(total, weights / total, 20_000).astype(float)
        return latency.edge_ms(latency.quantile_bin(draws, 0.95))

    low, high = np.quantile(resampled(shadow) - resampled(active), [0.025, 0.975])
    assert found.p95_diff_low_ms == pytest.approx(low, abs=12)
    assert found.p95_diff_high_ms == pytest.approx(high, abs=12)


def test_errors_are_compared_before_any_latency_counts() -> None:
    nothing = np.zeros(latency.BINS)
    found = report(n_s=50, x_s=17, n_a=950, x_a=19, latency_s=nothing, latency_a=nothing)
    assert found.p95_diff_ms is None
    assert found.objections == ("fisher", "chi2")
    assert "p95 no data" in found.line


def test_a_slower_shadow_is_told_with_its_interval() -> None:
    found = made(shift=200.0)
    assert 50.0 < found.p95_diff_low_ms < 200.0 < found.p95_diff_high_ms
    assert "bootstrap_p95" in found.objections


def test_only_a_worse_shadow_is_objected_to() -> None:
    assert made(x_s=40, x_a=360).objections == ()
    assert made(x_s=0, x_a=360).fisher_p < 0.05
    assert made(x_s=0, x_a=360).objections == ()
    assert made(x_s=90, x_a=360).objections == ("fisher", "chi2")


def test_no_error_at_all_is_no_difference() -> None:
    found = made(x_s=0, x_a=0)
    assert (found.fisher_p, found.chi2_p) == (1.0, 1.0)


def test_identical_twins_are_called_different_at_about_the_nominal_rate() -> None:
    """At a size that was fixed in advance, and looked at once."""
    rng = np.random.default_rng(42)
    flagged = 0
    for seed in range(300):
        x_s, x_a = rng.binomial(1000, 0.04), rng.binomial(9000, 0.04)
        flagged += "fisher" in made(int(x_s), int(x_a), seed=seed).objections
    assert flagged / 300 < 0.06


def test_an_empty_arm_has_no_report() -> None:
    with pytest.raises(ValueError, match="both arms"):
        report(
            n_s=0,
            x_s=0,
            n_a=5,
            x_a=0,
            latency_s=np.zeros(latency.BINS),
            latency_a=np.zeros(latency.BINS),
        )
