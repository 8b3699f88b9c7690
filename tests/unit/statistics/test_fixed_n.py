"""The classical report: right numbers, and a label that keeps it out of decisions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from twinloop.statistics import latency
from twinloop.statistics.fixed_n import LABEL, report


def histogram(rng: np.random.Generator, shift: float = 0.0) -> latency.Floats:
    return latency.dense((int(i), 1.0) for i in latency.bins_of(rng.lognormal(5.3, 0.5, 600) + shift))


def test_the_report_is_labelled_and_repeats_from_its_seed() -> None:
    rng = np.random.default_rng(1)
    slow, fast = histogram(rng, 200.0), histogram(rng)
    reports = [
        report(
            n_s=1000,
            x_s=60,
            n_a=9000,
            x_a=360,
            latency_s=slow,
            latency_a=fast,
            rng=np.random.default_rng(42),
        )
        for _ in range(2)
    ]
    assert reports[0] == reports[1]
    assert reports[0].label == LABEL == "not used for the decision"
    assert reports[0].fisher_p == pytest.approx(fisher_exact([[60, 940], [360, 8640]]).pvalue)
    assert reports[0].p95_diff_low_ms < 200.0 < reports[0].p95_diff_high_ms
    assert reports[0].p95_diff_low_ms > 50.0


def test_an_empty_arm_has_no_report() -> None:
    with pytest.raises(ValueError, match="both arms"):
        report(
            n_s=0,
            x_s=0,
            n_a=5,
            x_a=0,
            latency_s=np.zeros(latency.BINS),
            latency_a=np.zeros(latency.BINS),
            rng=np.random.default_rng(0),
        )
