"""The whole canary rule on simulated traffic: short runs of the acceptance tests, with their sampling error.

`benchmarks/canary.py` runs the same scenarios at length.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twinloop.statistics.gates import CanaryPolicy, CanaryState, VerdictKind, advance, judge
from twinloop.statistics.latency import BINS
from twinloop.statistics.simulation import (
    ABORTED,
    FIRST_BIN,
    PROMOTED,
    UNDECIDED,
    Outcomes,
    Scenario,
    Window,
    simulate,
)
from twinloop.statistics.tally import Arms, ArmTally, WindowTally

POLICY = CanaryPolicy(warmup_units=0)


def run(scenario: Scenario, runs: int, policy: CanaryPolicy = POLICY) -> Outcomes:
    return simulate(policy, scenario, runs=runs, rng=np.random.default_rng(42))


def test_identical_twins_are_promoted_soon_and_never_stopped() -> None:
    result = run(Scenario("A/A"), 40)
    assert result.share(ABORTED) <= 0.05
    assert float(np.mean((result.decision == PROMOTED) & (result.units <= 5000))) >= 0.93
    assert result.units_at(0.5) <= 1300


def test_identical_twins_with_few_errors_or_a_small_canary_are_not_stopped() -> None:
    capped = replace(POLICY, max_shadow=1000)
    for scenario in (
        Scenario("rare", error_s=0.002, error_a=0.002),
        Scenario("small", share=0.05, window=200),
    ):
        assert run(scenario, 25, capped).share(ABORTED) <= 0.01


def test_a_shadow_two_points_worse_is_fine() -> None:
    result = run(Scenario("6 %", error_s=0.06), 30)
    assert result.share(ABORTED) <= 0.05
    assert float(np.mean((result.decision == PROMOTED) & (result.units <= 5000))) >= 0.85


def test_a_shadow_at_the_edge_of_every_limit_is_not_promoted_early() -> None:
    capped = replace(POLICY, max_shadow=1500)
    result = run(Scenario("9 %", error_s=0.09), 40, capped)
    assert result.share(PROMOTED) <= 0.05


@pytest.mark.parametrize(
    ("scenario", "limit"),
    [
        (Scenario("12 %", error_s=0.12), 2000),
        (Scenario("20 %", error_s=0.20), 290),
        (Scenario("30 %", error_s=0.30), 110),
        (Scenario("outage", error_s=1.0), 20),
        (Scenario("p95 +150 ms", shift_ms=150.0), 850),
        (Scenario("toxicity 8 %", toxic_s=0.08), 2000),
        (Scenario("toxicity 20 %", toxic_s=0.20), 140),
    ],
)
def test_a_bad_shadow_is_stopped_in_time(scenario: Scenario, limit: float) -> None:
    result = run(scenario, 60)
    assert result.share(PROMOTED) <= 0.05
    assert result.units_at(0.95, ABORTED) <= limit


def test_p95_at_the_edge_is_left_undecided() -> None:
    result = run(Scenario("+50 ms", shift_ms=50.0), 30, replace(POLICY, max_shadow=1500))
    assert result.share(UNDECIDED) >= 0.85


def ramp(number: int) -> tuple[float, float]:
    return 0.25 + 1.5 * min(number / 90, 1.0), (0.1, 0.5, 1.0)[min(number // 30, 2)]


def test_a_ramp_with_a_trend_fools_a_pooled_test_but_not_the_rule() -> None:
    scenario = Scenario("ramp", window=1000, drift=ramp)
    policy = replace(POLICY, max_shadow=4_000)
    result = simulate(policy, scenario, runs=25, rng=np.random.default_rng(42), record=90)
    n_s, x_s, n_a, x_a = (
        np.sum([getattr(w, name) for w in result.recorded], axis=0) for name in ("n_s", "x_s", "n_a", "x_a")
    )
    rate = (x_s + x_a) / (n_s + n_a)
    z = (x_s / n_s - x_a / n_a) / np.sqrt(rate * (1 - rate) * (1 / n_s + 1 / n_a))
    assert result.share(ABORTED) <= 0.01
    assert float(np.mean(np.abs(z) > 1.96)) > 0.9


@pytest.mark.parametrize("window", [10, 1000])
def test_the_size_of_windows_changes_no_guarantee(window: int) -> None:
    policy = replace(POLICY, window_units=window, max_shadow=500, min_shadow=300)
    assert run(Scenario("A/A", window=window), 8, policy).share(ABORTED) == 0.0
    assert run(Scenario("9 %", error_s=0.09, window=window), 8, policy).share(PROMOTED) == 0.0


def arm(n: float, x: float, bins: np.ndarray, toxic: float = 0.0) -> ArmTally:  # type: ignore[type-arg]
    pairs = tuple((int(i) + FIRST_BIN, float(bins[i])) for i in np.flatnonzero(bins))
    return ArmTally(
        queries=int(n),
        units=int(n),
        errors=float(x),
        answered=int(n - x),
        latency=pairs,
        toxic=float(toxic),
        new_keys=int(n),
    )


def tally_of(window: Window, run_index: int, number: int) -> WindowTally:
    r = run_index
    shadow = arm(window.n_s[r], window.x_s[r], window.bins_s[r], window.toxic_s[r])
    active = arm(window.n_a[r], window.x_a[r], window.bins_a[r])
    return WindowTally(float(number), number + 1.0, 1, 1000, Arms(active, shadow))


@pytest.mark.parametrize(
    "scenario", [Scenario("A/A"), Scenario("15 %", error_s=0.15), Scenario("slow", shift_ms=120.0)]
)
def test_the_simulator_and_the_judge_decide_alike(scenario: Scenario) -> None:
    policy = CanaryPolicy(domains=(), max_shadow=1500, warmup_s=1e9)
    result = simulate(policy, scenario, runs=2, rng=np.random.default_rng(5), record=160)
    assert result.baseline is not None
    for r in range(2):
        baseline = np.zeros(BINS)
        baseline[FIRST_BIN : FIRST_BIN + result.baseline.shape[1]] = result.baseline[r]
        state = CanaryState.begin(policy, now=0.0, baseline=baseline)
        for number, window in enumerate(result.recorded):
            state = advance(policy, state, tally_of(window, r, number), number + 1.0)
            verdict = judge(policy, state, number + 1.0)
            if verdict.kind is not VerdictKind.HOLD:
                break
        expected = {PROMOTED: "promote", ABORTED: "abort", UNDECIDED: "abort"}[int(result.decision[r])]
        assert verdict.kind.value == expected
        assert state.totals.units_s == result.units[r]
        if result.decision[r] == UNDECIDED:
            assert verdict.reason_code == "inconclusive"
