"""The classical tests of a finished comparison, for readers who expect them.

They assume that the sample size was fixed in advance. Read at every look, Fisher's test flags 17 to 36 % of identical
twins and a bootstrap of p95 promotes or stops far above its nominal rate. So they are computed once: in the report of
an A/B test, where they are not used for the decision, and, where a policy asks for it, as a gate that may only block.

No random numbers: the bootstrap distribution of a quantile is known in closed form, and a report that is kept in the
decision log has to replay to the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom, chi2_contingency, fisher_exact

from . import latency
from .canary_state import P95, CanaryState
from .latency import Floats

LABEL = "not used for the decision"
GATE_LABEL = "may only block"
_DIGITS = 6


@dataclass(frozen=True)
class FixedNReport:
    """Fixed-n p-values for equal error rates and a bootstrap interval for the difference of p95."""

    label: str
    n_s: int
    x_s: int
    n_a: int
    x_a: int
    fisher_p: float
    """Two-sided."""
    chi2_p: float
    """Two-sided, with Yates's correction."""
    p95_diff_ms: float | None
    """Shadow less active; None, like its interval, where an arm has no latency that counts yet."""
    p95_diff_low_ms: float | None
    p95_diff_high_ms: float | None
    """Percentile bootstrap interval at `1 - alpha`."""
    alpha: float

    @property
    def objections(self) -> tuple[str, ...]:
        """The tests that call the shadow worse at `alpha`."""
        is_worse = self.x_s * self.n_a > self.x_a * self.n_s
        found = {
            "fisher": is_worse and self.fisher_p < self.alpha,
            "chi2": is_worse and self.chi2_p < self.alpha,
            "bootstrap_p95": self.p95_diff_low_ms is not None and self.p95_diff_low_ms > 0,
        }
        return tuple(name for name, objects in found.items() if objects)

    @property
    def line(self) -> str:
        """The report in one readable line."""
        slower = "p95 no data"
        if self.p95_diff_ms is not None:
            slower = (
                f"p95 {self.p95_diff_ms:+.0f} ms [{self.p95_diff_low_ms:+.0f}, {self.p95_diff_high_ms:+.0f}]"
            )
        return (
            f"fixed-n ({self.label}): errors {self.x_s}/{self.n_s} against {self.x_a}/{self.n_a}, "
            f"Fisher p={self.fisher_p:.3g}, chi-square p={self.chi2_p:.3g}, {slower}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, objections included."""
        return {**asdict(self), "objections": list(self.objections), "line": self.line}


def report(
    *,
    n_s: int,
    x_s: int,
    n_a: int,
    x_a: int,
    latency_s: Floats,
    latency_a: Floats,
    alpha: float = 0.05,
    label: str = LABEL,
) -> FixedNReport:
    """One report at the end of a comparison; `latency_*` are dense histograms.

    Raises ValueError when an arm is empty.
    """
    if min(n_s, n_a) < 1:
        raise ValueError("the fixed-n report needs traffic in both arms")
    table = np.array([[x_s, n_s - x_s], [x_a, n_a - x_a]])
    has_both = table.sum(axis=0).min() > 0
    has_latency = min(latency_s.sum(), latency_a.sum()) >= 1
    low, high = _bootstrap_p95_diff(latency_s, latency_a, alpha) if has_latency else (None, None)
    return FixedNReport(
        label=label,
        n_s=n_s,
        x_s=x_s,
        n_a=n_a,
        x_a=x_a,
        fisher_p=_rounded(fisher_exact(table).pvalue),
        chi2_p=_rounded(chi2_contingency(table).pvalue) if has_both else 1.0,
        p95_diff_ms=_p95(latency_s) - _p95(latency_a) if has_latency else None,
        p95_diff_low_ms=low,
        p95_diff_high_ms=high,
        alpha=alpha,
    )


def counted_units(state: CanaryState) -> int:
    """Shadow units in closed windows: what a size that was fixed in advance is compared with."""
    return round(float(state.processes["error_abort"].n_s[0]))


def report_of(state: CanaryState, *, alpha: float = 0.05, label: str = LABEL) -> FixedNReport | None:
    """The report on what a canary or an A/B test has counted so far, None while an arm is empty.

    A unit counts once a window with its mean, so counts of errors are rounded to whole units.
    """
    errors = state.processes["error_abort"]
    n_s, x_s, n_a, x_a = (round(float(each[0])) for each in (errors.n_s, errors.x_s, errors.n_a, errors.x_a))
    if min(n_s, n_a) < 1:
        return None
    return report(
        n_s=n_s,
        x_s=min(x_s, n_s),
        n_a=n_a,
        x_a=min(x_a, n_a),
        latency_s=state.latency_s,
        latency_a=state.latency_a,
        alpha=alpha,
        label=label,
    )


def _rounded(p_value: float) -> float:
    """A few digits: the last ones depend on scipy's version, and a kept report must not."""
    return float(f"{float(p_value):.{_DIGITS}g}")


def _p95(weights: Floats) -> float:
    return float(latency.edge_ms(np.minimum(latency.quantile_bin(weights, P95), latency.EDGE_COUNT - 1)))


def _p95_distribution(weights: Floats) -> tuple[Floats, Floats]:
    """(p95 in ms, probability) over all resamples of the histogram, exactly (Efron 1979).

    The p95 of a resample of n is at most an edge where at least 95 % of its n draws are, and the number of those is
    binomial.
    """
    used = np.flatnonzero(weights)
    total = float(weights.sum())
    n = max(1, round(total))
    below = weights[used].cumsum() / total
    below[-1] = 1.0
    reached = binom.sf(math.ceil(P95 * n - 1e-9) - 1, n, below)
    edges = latency.edge_ms(np.minimum(used, latency.EDGE_COUNT - 1))
    return edges, np.diff(np.asarray(reached, dtype=np.float64), prepend=0.0)


def _bootstrap_p95_diff(latency_s: Floats, latency_a: Floats, alpha: float) -> tuple[float, float]:
    (edges_s, chance_s), (edges_a, chance_a) = _p95_distribution(latency_s), _p95_distribution(latency_a)
    diff = np.subtract.outer(edges_s, edges_a).ravel()
    order = diff.argsort(kind="stable")
    reached = np.multiply.outer(chance_s, chance_a).ravel()[order].cumsum()
    places = np.searchsorted(reached, [alpha / 2, 1 - alpha / 2])
    low, high = diff[order][np.minimum(places, len(diff) - 1)]
    return float(low), float(high)
