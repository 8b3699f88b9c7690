"""The classical tests of the finished canary, for readers who expect them. Not used for the decision.

They assume that the sample size was fixed in advance. Read at every look, Fisher's test flags 17 to 36 % of
identical twins and the bootstrap of p95 promotes or stops far above its nominal rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, fisher_exact

from . import latency
from .latency import Floats

LABEL = "not used for the decision"
_RESAMPLES = 999


@dataclass(frozen=True)
class FixedNReport:
    """Fixed-n p-values for equal error rates and a bootstrap interval for the difference of p95."""

    label: str
    fisher_p: float
    chi2_p: float
    p95_diff_ms: float
    p95_diff_low_ms: float
    p95_diff_high_ms: float


def report(
    *,
    n_s: int,
    x_s: int,
    n_a: int,
    x_a: int,
    latency_s: Floats,
    latency_a: Floats,
    rng: np.random.Generator,
) -> FixedNReport:
    """One report at the end of a canary; `latency_*` are dense histograms, `rng` makes the resamples.

    Raises ValueError when an arm is empty.
    """
    if min(n_s, n_a) < 1 or min(latency_s.sum(), latency_a.sum()) < 1:
        raise ValueError("the fixed-n report needs traffic in both arms")
    table = np.array([[x_s, n_s - x_s], [x_a, n_a - x_a]])
    has_both = table.sum(axis=0).min() > 0
    low, high = _bootstrap_p95_diff(latency_s, latency_a, rng)
    return FixedNReport(
        label=LABEL,
        fisher_p=float(fisher_exact(table).pvalue),
        chi2_p=float(chi2_contingency(table).pvalue) if has_both else 1.0,
        p95_diff_ms=_p95(latency_s) - _p95(latency_a),
        p95_diff_low_ms=low,
        p95_diff_high_ms=high,
    )


def _p95(weights: Floats) -> float:
    return float(latency.edge_ms(np.minimum(latency.quantile_bin(weights, 0.95), latency.EDGE_COUNT - 1)))


def _resampled_p95(weights: Floats, rng: np.random.Generator) -> Floats:
    total = weights.sum()
    used = np.flatnonzero(weights)
    draws: NDArray[np.float64] = rng.multinomial(
        round(float(total)), weights[used] / total, _RESAMPLES
    ).astype(float)
    index = used[np.minimum(latency.quantile_bin(draws, 0.95), len(used) - 1)]
    return latency.edge_ms(np.minimum(index, latency.EDGE_COUNT - 1))


def _bootstrap_p95_diff(
    latency_s: Floats, latency_a: Floats, rng: np.random.Generator
) -> tuple[float, float]:
    diff = _resampled_p95(latency_s, rng) - _resampled_p95(latency_a, rng)
    low, high = np.quantile(diff, [0.025, 0.975])
    return float(low), float(high)
