"""The e-process: its one inequality, exactly; its error rate at the edge; its arithmetic."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.stats import binom

from twinloop.statistics import eprocess
from twinloop.statistics.eprocess import EProcessSpec, EProcessState, OneArmSpec
from twinloop.statistics.evidence import specs
from twinloop.statistics.policy import CanaryPolicy

SPECS = specs(CanaryPolicy())
TWO_ARM = {name: spec for name, spec in SPECS.items() if isinstance(spec, EProcessSpec)}
ONE_ARM = {name: spec for name, spec in SPECS.items() if isinstance(spec, OneArmSpec)}


def worst_mean_factor(spec: EProcessSpec, bet: float, n_s: int, n_a: int) -> float:
    """Largest mean of one window's factor over offsets and null points, every outcome enumerated."""
    x_s, x_a = (v.ravel().astype(float) for v in np.meshgrid(np.arange(n_s + 1), np.arange(n_a + 1)))
    sizes = (np.array([float(n_s)]), np.array([float(n_a)]))
    factor = np.exp(eprocess.log_factors(spec, np.array([bet]), sizes[0], x_s, sizes[1], x_a))
    theta = np.array(null_points(spec))
    weight = binom.pmf(x_s, n_s, theta[:, :1]) * binom.pmf(x_a, n_a, theta[:, 1:])
    return float((weight @ factor).max())


def null_points(spec: EProcessSpec) -> list[tuple[float, float]]:
    """Pairs (shadow, active) inside the null, most of them on its edge, where the mean is largest."""
    points = []
    for q in (0.0, 0.001, 0.01, 0.04, 0.1, 0.3, 0.47, 0.8):
        edge = spec.r * q + spec.c
        if edge <= 1.0:
            points.append((edge, q))
            points.append((edge * 0.7 if spec.direction == "up" else min(1.0, edge + 0.03), q))
    return points


@pytest.mark.parametrize("name", sorted(TWO_ARM))
def test_the_mean_factor_never_exceeds_one_under_the_null(name: str) -> None:
    sizes = itertools.product((1, 2, 3, 5, 7, 10), (1, 2, 9, 30, 63, 90))
    for (n_s, n_a), bet in itertools.product(sizes, (0.002, 0.04, 0.2, 0.6)):
        assert worst_mean_factor(TWO_ARM[name], bet, n_s, n_a) <= 1.0 + 1e-9


@pytest.mark.parametrize("name", sorted(ONE_ARM))
def test_the_mean_one_arm_factor_never_exceeds_one_under_the_null(name: str) -> None:
    spec = ONE_ARM[name]
    for n, theta in itertools.product((1, 5, 40), (0.0, 0.01, 0.05, 0.2, 1.0)):
        inside = theta <= spec.limit if spec.direction == "up" else theta >= spec.limit
        if not inside:
            continue
        x = np.arange(n + 1.0)
        state = eprocess.step_one_arm(spec, EProcessState.start(spec, (n + 1,)), np.full(n + 1, float(n)), x)
        assert float(binom.pmf(x, n, theta) @ np.exp(eprocess.log_e(state))) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("name", "error_s", "error_a", "alpha"),
    [
        ("ratio_abort", 0.08, 0.04, 0.0125),
        ("error_abort", 0.09, 0.04, 0.05),
        ("error_promote", 0.09, 0.04, 0.05),
        ("error_promote", 0.06, 0.01, 0.05),
    ],
)
def test_crossing_at_the_exact_edge_stays_within_its_nominal_rate(
    name: str, error_s: float, error_a: float, alpha: float
) -> None:
    runs, rng, spec = 300, np.random.default_rng(42), TWO_ARM[name]
    state = EProcessState.start(spec, (runs,))
    for _ in range(200):
        n_s = rng.binomial(100, 0.1, runs)
        state = eprocess.step(
            spec, state, n_s, rng.binomial(n_s, error_s), 100 - n_s, rng.binomial(100 - n_s, error_a)
        )
    crossed = float(np.mean(state.max_log_e >= -np.log(alpha)))
    assert crossed <= alpha + 3.0 * np.sqrt(alpha * (1 - alpha) / runs)


def test_an_empty_arm_is_no_evidence() -> None:
    spec = TWO_ARM["error_abort"]
    state = eprocess.step(spec, EProcessState.start(spec, (2,)), [0, 50], [0, 50], [50, 0], [0, 0])
    assert eprocess.log_e(state).tolist() == [0.0, 0.0]


def test_a_bet_that_cannot_lie_beyond_the_null_is_not_placed() -> None:
    spec = TWO_ARM["ratio_abort"]
    before = eprocess.step(spec, EProcessState.start(spec, (1,)), [10], [9], [1000], [700])
    after = eprocess.step(spec, before, [10], [10], [1000], [700])
    assert after.log_e.tolist() == before.log_e.tolist()


def test_the_projection_lies_on_the_edge_and_is_the_nearest_point() -> None:
    spec = TWO_ARM["error_abort"]
    a, p, n_s, n_a = 0.04, 0.17, 10.0, 90.0

    def distance(q: float) -> float:
        s = spec.r * q + spec.c
        kl = lambda x, y: x * np.log(x / y) + (1 - x) * np.log((1 - x) / (1 - y))  # noqa: E731
        return float(n_s * kl(p, s) + n_a * kl(a, q))

    edge = eprocess.Edges.of([spec], [1])
    s, q = eprocess.project(edge, *(np.array([[v]]) for v in (p, a, n_s, n_a)))
    assert float(s[0, 0]) == pytest.approx(spec.r * float(q[0, 0]) + spec.c, abs=1e-15)
    grid = np.linspace(0.001, 0.2, 20_001)
    assert distance(float(q[0, 0])) <= min(distance(v) for v in grid) + 1e-9


def test_stepping_together_gives_the_same_bits_as_stepping_one_by_one() -> None:
    rng = np.random.default_rng(1)
    counts = tuple(np.asarray(v, dtype=float) for v in ([10, 12, 3], [1, 0, 2], [90, 88, 97], [4, 3, 9]))
    states = {name: EProcessState.start(spec, (3,)) for name, spec in TWO_ARM.items()}
    for _ in range(3):
        shifted = (counts[0], rng.binomial(3, 0.3, 3).astype(float), counts[2], counts[3])
        alone = {n: eprocess.step(s, states[n], *shifted) for n, s in TWO_ARM.items()}
        together = eprocess.step_together([(s, states[n], shifted) for n, s in TWO_ARM.items()])
        for name, other in zip(TWO_ARM, together, strict=True):
            assert alone[name].to_json() == other.to_json()
        states = alone


def test_state_survives_json_with_the_same_bits() -> None:
    spec = TWO_ARM["p95_abort"]
    state = eprocess.step(spec, EProcessState.start(spec, (2,)), [10, 11], [1.1, 0], [90, 91], [4.3, 5])
    text = json.dumps(state.to_json())
    again = EProcessState.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    after = [eprocess.step(spec, s, [5, 5], [1, 0], [50, 50], [2, 2]).to_json() for s in (state, again)]
    assert after[0] == after[1]


def test_fractional_outcomes_are_never_worth_more_than_the_betting_form() -> None:
    spec = TWO_ARM["error_abort"]
    rng = np.random.default_rng(3)
    shadow, active = rng.beta(0.2, 2.0, 10), rng.beta(0.2, 4.0, 90)
    bet = np.array([0.04])
    gain = eprocess.log_factors(
        spec, bet, *(np.array([v]) for v in (10.0, shadow.sum(), 90.0, active.sum()))
    )[0]
    edge = eprocess.Edges.of([spec], [1])
    p = np.clip(0.09 + np.array(spec.offsets), eprocess.P_MIN, eprocess.P_MAX)[None]
    s, q = eprocess.project(edge, p, bet[:, None], np.array([[10.0]]), np.array([[90.0]]))
    g_s, g_a = (p - s) / (s * (1 - s)), (0.04 - q) / (q * (1 - q))
    betting = np.log1p(g_s * (shadow[:, None] - s)).sum(0) + np.log1p(g_a * (active[:, None] - q)).sum(0)
    assert (gain <= betting + 1e-9).all()


def test_the_anytime_p_value_only_falls() -> None:
    spec = TWO_ARM["error_abort"]
    state, last = EProcessState.start(spec, (1,)), 1.0
    for x in (5, 0, 6, 0, 0, 9):
        state = eprocess.step(spec, state, [10], [x], [90], [4])
        now = float(eprocess.anytime_p(state)[0])
        assert now <= last
        last = now
    assert last < 1e-3
