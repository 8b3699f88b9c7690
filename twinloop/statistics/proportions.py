"""Intervals for one rate and the exact test for pairs.

`clopper_pearson` and `wilson` hold for a sample size fixed in advance; `confidence_sequence` holds at every
look.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainccinv, betaincinv, betaln, xlog1py, xlogy
from scipy.stats import binomtest, norm

Floats = NDArray[np.float64]

PRIOR_A, PRIOR_B = 1.0, 19.0
"""Beta mixture around 5 %: any choice is valid, this one is narrow at low error rates (width .05 at 93 units
without an error, 585 at 4 %; the uniform mixture needs 158 and 883)."""
_CS_STEPS = 40


def clopper_pearson(x: ArrayLike, n: ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Exact two-sided interval (Clopper, Pearson 1934) for x of n; (0, 1) when n is 0."""
    x, n = np.asarray(x, dtype=np.float64), np.asarray(n, dtype=np.float64)
    low = np.where(x > 0, betaincinv(np.maximum(x, 0.5), n - x + 1.0, alpha / 2.0), 0.0)
    rest = np.maximum(n - x, 0.5)
    high = np.where(x < n, betainccinv(x + 1.0, rest, alpha / 2.0), 1.0)
    return low, high


def wilson(x: ArrayLike, n: ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Score interval (Wilson 1927) for x of n; (0, 1) when n is 0."""
    x, n = np.asarray(x, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = float(norm.isf(alpha / 2.0))
    safe_n = np.maximum(n, 1.0)
    rate = x / safe_n
    scale = 1.0 + z * z / safe_n
    middle = (rate + z * z / (2.0 * safe_n)) / scale
    half = z * np.sqrt(rate * (1.0 - rate) / safe_n + z * z / (4.0 * safe_n * safe_n)) / scale
    return (
        np.where(n > 0, np.maximum(middle - half, 0.0), 0.0),
        np.where(n > 0, np.minimum(middle + half, 1.0), 1.0),
    )


def confidence_sequence(
    x: ArrayLike, n: ArrayLike, alpha: float = 0.05, *, steps: int = _CS_STEPS
) -> tuple[Floats, Floats]:
    """Time-uniform interval for a Bernoulli rate: all rates whose beta-binomial e-value is below 1 / alpha.

    Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon, arXiv 1810.08240. Valid at every n at once. Fractional x
    (sums of outcomes in [0, 1]) are covered too, by concavity. Each end is found by so many halvings and lies
    outside, so that fewer of them only make the interval wider.
    """
    x, n = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(n, dtype=np.float64))
    level = betaln(PRIOR_A + x, PRIOR_B + n - x) - betaln(PRIOR_A, PRIOR_B) + np.log(alpha)
    rate = np.stack([x, x]) / np.maximum(n, 1.0)

    def is_excluded(p: Floats) -> NDArray[np.bool_]:
        return np.asarray(xlogy(x, p) + xlog1py(n - x, -p) <= level)

    # Row 0 searches the lower end between 0 and the estimate, row 1 the upper end between 1 and the estimate.
    outside, inside = np.stack([np.zeros_like(x), np.ones_like(x)]), rate
    is_open = ~is_excluded(outside)
    ends = outside.copy()
    for _ in range(steps):
        middle = 0.5 * (outside + inside)
        excluded = is_excluded(middle)
        outside = np.where(excluded, middle, outside)
        inside = np.where(excluded, inside, middle)
    low, high = np.where(is_open, ends, outside)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value for paired yes/no results from the two discordant counts (McNemar 1947)."""
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(binomtest(only_first, discordant, 0.5).pvalue)
