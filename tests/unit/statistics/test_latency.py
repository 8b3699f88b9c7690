"""Latency bins: exact where they must be, rounded away from the claim everywhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.statistics import latency

TIMES = st.floats(min_value=0.01, max_value=700_000.0)


@given(TIMES)
def test_a_latency_lies_in_its_bin_and_within_half_a_percent_of_its_edge(ms: float) -> None:
    index = int(latency.bins_of(ms))
    upper = float(latency.edge_ms(index))
    assert ms <= upper
    if 0 < index < latency.OVERFLOW:
        assert latency.EDGES_MS[index - 1] < ms
        assert upper / ms <= 1.00501


@given(st.lists(TIMES, min_size=1, max_size=60), TIMES)
def test_thresholds_are_rounded_away_from_the_claim(times: list[float], threshold: float) -> None:
    bins = latency.bins_of(times)
    up, down = (int(v) for v in latency.threshold_bins(threshold))
    true = sum(t > threshold for t in times)
    assert int((bins > up).sum()) <= true <= int((bins > down).sum())


def test_a_threshold_on_an_edge_is_counted_exactly() -> None:
    edge = float(latency.EDGES_MS[1300])
    times = [edge * 0.999, edge, edge * 1.001]
    up, down = (int(v) for v in latency.threshold_bins(edge))
    assert up == down == 1300
    assert int((latency.bins_of(times) > up).sum()) == 1


def test_quantiles_of_many_histograms_are_those_of_each() -> None:
    rng = np.random.default_rng(7)
    times = rng.lognormal(5, 0.5, (4, 500))
    rows = np.array([latency.dense((int(i), 1.0) for i in latency.bins_of(row)) for row in times])
    found = latency.edge_ms(latency.quantile_bin(rows, 0.95))
    exact = np.sort(times, axis=1)[:, 474]
    assert found == pytest.approx(exact, rel=0.0051)


def test_sparse_and_dense_are_the_same_histogram() -> None:
    pairs = ((3, 1.5), (900, 0.25), (latency.OVERFLOW, 2.0))
    assert latency.sparse(latency.dense(pairs)) == pairs
    assert latency.merge_sparse(pairs, ((900, 0.75), (5, 1.0))) == (
        (3, 1.5),
        (5, 1.0),
        (900, 1.0),
        (latency.OVERFLOW, 2.0),
    )


def test_the_edges_are_pinned_because_logged_tallies_depend_on_them() -> None:
    assert latency.EDGES_MS[0] == 0.5
    assert float(latency.EDGES_MS[1000]) == pytest.approx(0.5 * 1.005**1000, rel=1e-12)
    assert latency.EDGES_MS[-1] > 600_000
