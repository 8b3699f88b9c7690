"""Other judges put to the same traffic: the naive rule, Fisher's test at every look, Mann-Whitney over points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, norm

from twinloop.statistics import latency
from twinloop.statistics.eprocess import Floats
from twinloop.statistics.gates import CanaryPolicy
from twinloop.statistics.simulation import ABORTED, FIRST_BIN, PROMOTED, UNDECIDED, Outcomes, Window

SEED = 42
Figures = dict[str, Any]
Judge = Callable[[Outcomes, CanaryPolicy], Figures]

BASE = CanaryPolicy(warmup_units=0)
"""The tables count from the first query; one row shows the default warm-up of 50 units."""


def summary(decision: NDArray[np.int64], units: Floats) -> Figures:
    decided = units[decision != UNDECIDED]
    return {
        "abort": float(np.mean(decision == ABORTED)),
        "promote": float(np.mean(decision == PROMOTED)),
        "inconclusive": float(np.mean(decision == UNDECIDED)),
        "n_median": float(np.median(decided)) if len(decided) else None,
        "n_p95": float(np.quantile(decided, 0.95)) if len(decided) else None,
    }


def cumulated(windows: tuple[Window, ...], name: str) -> Floats:
    return np.cumsum([getattr(window, name) for window in windows], axis=0)


def _p95(bins: Floats) -> Floats:
    return latency.edge_ms(latency.quantile_bin(bins, 0.95) + FIRST_BIN)


def first_row(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row of the first True per column; the number of rows where there is none."""
    return np.where(flags.any(axis=0), flags.argmax(axis=0), len(flags))


def _ended(n_s: Floats, stop: NDArray[np.int64], last: NDArray[np.int64], good: NDArray[np.bool_]) -> Figures:
    aborted = (stop <= last) | ~good
    at = np.minimum(stop, last)
    units = n_s[np.minimum(at, len(n_s) - 1), np.arange(n_s.shape[1])]
    return summary(np.where(aborted, ABORTED, PROMOTED), units)


def _literal_at_end(result: Outcomes, last: NDArray[np.int64], policy: CanaryPolicy) -> NDArray[np.bool_]:
    """The literal limits of error, p95 and toxicity on everything up to each run's last window."""
    windows = result.recorded
    n_s, x_s, n_a, x_a, toxic = (cumulated(windows, n) for n in ("n_s", "x_s", "n_a", "x_a", "toxic_s"))
    runs = np.arange(n_s.shape[1])
    at = (np.minimum(last, len(windows) - 1), runs)
    bins_s, bins_a = np.zeros_like(windows[0].bins_s), np.zeros_like(windows[0].bins_a)
    for number, window in enumerate(windows):
        is_in = (number <= last)[:, None]
        bins_s += window.bins_s * is_in
        bins_a += window.bins_a * is_in
    return (
        (x_s[at] / n_s[at] <= x_a[at] / n_a[at] + policy.error_margin)
        & (_p95(bins_s) <= _p95(bins_a) + policy.p95_margin_ms)
        & (toxic[at] <= policy.toxicity_max * np.maximum(n_s[at] - x_s[at], 1.0))
    )


def naive_judge(result: Outcomes, policy: CanaryPolicy) -> Figures:
    """Literal limits: stop at more than twice the error from 100 shadow queries, all limits at 1000."""
    n_s, x_s, n_a, x_a = (cumulated(result.recorded, name) for name in ("n_s", "x_s", "n_a", "x_a"))
    doubled = (n_s >= 100) & (x_s * n_a > policy.early_stop_ratio * x_a * n_s)
    last = first_row(n_s >= 1000)
    return _ended(n_s, first_row(doubled), last, _literal_at_end(result, last, policy))


def fisher_judge(result: Outcomes, policy: CanaryPolicy) -> Figures:
    """Fisher's exact test, p < .05 two-sided and worse, at every 50 shadow queries; the other limits at 1000."""
    n_s, x_s, n_a, x_a = (cumulated(result.recorded, name) for name in ("n_s", "x_s", "n_a", "x_a"))
    looks = np.arange(4, len(n_s), 5)
    worse = np.zeros(n_s.shape, dtype=bool)
    worse[looks] = (
        hypergeom.sf(x_s[looks] - 1, n_s[looks] + n_a[looks], x_s[looks] + x_a[looks], n_s[looks]) < 0.025
    )
    last = first_row(n_s >= 1000)
    return _ended(n_s, first_row(worse), last, _literal_at_end(result, last, policy))


def mann_whitney_judge(result: Outcomes, _: CanaryPolicy) -> Figures:
    """Points of two windows; error rate and p95 compared at 98 % confidence at every tenth point, 50 points in all.

    A metric is High when the lower confidence limit of the location shift exceeds a quarter of its
    Hodges-Lehmann estimate (spinnaker/kayenta, MannWhitneyClassifier.scala).
    """
    windows = result.recorded[: 2 * (len(result.recorded) // 2)]
    pairs = [(windows[i], windows[i + 1]) for i in range(0, len(windows), 2)][:50]
    points = [np.array([metric(a, b) for a, b in pairs]) for metric in (_rates, _tails)]
    n_s = cumulated(windows, "n_s")[1::2][: len(pairs)]
    high = np.zeros(n_s.shape, dtype=bool)
    for look in range(9, len(pairs), 10):
        for metric_points in points:
            high[look] |= _is_high(metric_points[: look + 1, 0], metric_points[: look + 1, 1])
    last = np.full(n_s.shape[1], len(pairs) - 1)
    return _ended(n_s, first_row(high), last, np.ones(n_s.shape[1], dtype=bool))


def _rates(a: Window, b: Window) -> tuple[Floats, Floats]:
    return (
        (a.x_s + b.x_s) / np.maximum(a.n_s + b.n_s, 1.0),
        (a.x_a + b.x_a) / np.maximum(a.n_a + b.n_a, 1.0),
    )


def _tails(a: Window, b: Window) -> tuple[Floats, Floats]:
    return _p95(a.bins_s + b.bins_s), _p95(a.bins_a + b.bins_a)


def _is_high(shadow: Floats, active: Floats) -> NDArray[np.bool_]:
    n, m = len(shadow), len(active)
    shifts = np.sort((shadow[:, None] - active[None]).reshape(n * m, -1), axis=0)
    spread = norm.isf(0.01) * np.sqrt(n * m * (n + m + 1) / 12.0)
    low = shifts[max(int(n * m / 2.0 - spread), 0)]
    estimate = np.median(shifts, axis=0)
    return np.asarray((low > 0.25 * np.abs(estimate)) & (estimate > 0))


JUDGES: dict[str, Judge] = {
    "naive": naive_judge,
    "fisher": fisher_judge,
    "mann_whitney": mann_whitney_judge,
}
