"""A latency histogram with fixed logarithmic bins, so that counts from any partition add up exactly.

Bin i holds (EDGES_MS[i-1], EDGES_MS[i]]; neighbouring edges differ by 0.5 %. A threshold that is itself an
edge is counted exactly. Any other threshold is rounded to an edge on the side the caller names: up for
evidence of harm, down for evidence of safety, so binning never helps the claim being tested. All functions
take any leading batch shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sparse = tuple[tuple[int, float], ...]
"""(bin, weight) pairs in rising bin order: the form that travels."""

GROWTH = 1.005
FIRST_EDGE_MS = 0.5
EDGE_COUNT = 2810

# Repeated multiplication, not a power: the edges are the same bits on every platform.
EDGES_MS: Floats = np.multiply.accumulate(np.concatenate(([FIRST_EDGE_MS], np.full(EDGE_COUNT - 1, GROWTH))))
BINS = EDGE_COUNT + 1
OVERFLOW = EDGE_COUNT


def bins_of(latency_ms: ArrayLike) -> Ints:
    """Bin of each latency; anything beyond about ten minutes lands in OVERFLOW."""
    return np.asarray(np.searchsorted(EDGES_MS, np.asarray(latency_ms, dtype=np.float64)), dtype=np.int64)


def quantile_bin(weights: Floats, quantile: float) -> Ints:
    """Smallest bin whose cumulated weight reaches the quantile (shape B from B + [BINS])."""
    total = weights.cumsum(axis=-1)
    goal = quantile * total[..., -1:]
    return np.asarray(np.minimum((total < goal - 1e-9).sum(axis=-1), OVERFLOW), dtype=np.int64)


def edge_ms(bin_index: ArrayLike) -> Floats:
    """Upper edge of a bin in milliseconds; infinite for OVERFLOW."""
    index = np.asarray(bin_index, dtype=np.int64)
    edge: Floats = np.where(index >= OVERFLOW, np.inf, EDGES_MS[np.minimum(index, EDGE_COUNT - 1)])
    return edge


def threshold_bins(threshold_ms: ArrayLike) -> tuple[Ints, Ints]:
    """(up, down): bins above `up` hold only latencies > threshold; bins above `down` hold all of them."""
    threshold = np.asarray(threshold_ms, dtype=np.float64)
    up = np.searchsorted(EDGES_MS, threshold, side="left").astype(np.int64)
    down = (np.searchsorted(EDGES_MS, threshold, side="right") - 1).astype(np.int64)
    return up, down


def weight_above(weights: Floats, bin_index: int) -> float:
    """Total weight in bins above the given one, for one histogram."""
    return float(weights[max(bin_index, -1) + 1 :].sum())


def dense(sparse: Iterable[tuple[int, float]]) -> Floats:
    """The full array of a travelling histogram."""
    full = np.zeros(BINS)
    for index, weight in sparse:
        full[index] += weight
    return full


def sparse(weights: Floats) -> Sparse:
    """The travelling form of a full array."""
    return tuple((int(i), float(weights[i])) for i in np.flatnonzero(weights))


def merge_sparse(left: Sparse, right: Sparse) -> Sparse:
    """Sum of two travelling histograms."""
    total = dict(left)
    for index, weight in right:
        total[index] = total.get(index, 0.0) + weight
    return tuple(sorted(total.items()))


def sparse_from_json(rows: Iterable[Any]) -> Sparse:
    """Travelling histogram from JSON lists."""
    return tuple((int(index), float(weight)) for index, weight in rows)
