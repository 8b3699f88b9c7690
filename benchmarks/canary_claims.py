"""The single claims of the canary rule, each with the mutant that it guards against.

Type I error at the very edge, ramps, sticky keys, hung requests, key split, rollback, window size, cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.canary_judges import BASE, SEED, Figures, cumulated, first_row, summary
from twinloop.statistics import latency
from twinloop.statistics.ecusum import ECusumState, detect, is_alarm
from twinloop.statistics.eprocess import EProcessSpec, EProcessState, Floats, step
from twinloop.statistics.evidence import specs
from twinloop.statistics.gates import CanaryState, VerdictKind, advance, judge
from twinloop.statistics.simulation import ABORTED, PROMOTED, Scenario, simulate
from twinloop.statistics.srm import split_log_e
from twinloop.statistics.tally import Arms, ArmTally, WindowTally
from twinloop.statistics.triggers import TriggerPolicy, trigger_specs
from twinloop.statistics.windows import Assignment, Outcome, PartitionWindows, WindowPolicy, tally_arm


def crossing(name: str, *, error_s: float, error_a: float, runs: int, windows: int, alpha: float) -> float:
    """Share of runs in which one process ever reaches 1 / alpha, at the truth given and a look at every window."""
    rng, spec = np.random.default_rng(SEED), specs(BASE)[name]
    assert isinstance(spec, EProcessSpec)
    state = EProcessState.start(spec, (runs,))
    for _ in range(windows):
        n_s = rng.binomial(100, 0.1, runs)
        n_a = 100 - n_s
        state = step(spec, state, n_s, rng.binomial(n_s, error_s), n_a, rng.binomial(n_a, error_a))
    return float(np.mean(state.max_log_e >= -np.log(alpha)))


def edge_figures(scale: float) -> Figures:
    """Test 9: type I error where the null only just holds."""
    runs = max(int(2000 * scale), 200)
    figures = {
        "abort at exactly 2x (nominal 1.25 %)": crossing(
            "ratio_abort", error_s=0.08, error_a=0.04, runs=runs, windows=1000, alpha=0.0125
        ),
        "abort at exactly +5 pts (nominal 5 %)": crossing(
            "error_abort", error_s=0.09, error_a=0.04, runs=runs, windows=1000, alpha=0.05
        ),
    }
    for error_s, error_a in ((0.09, 0.04), (0.15, 0.10), (0.06, 0.01)):
        name = f"promote at exactly +5 pts, {error_s:.0%} against {error_a:.0%} (nominal 5 %)"
        figures[name] = crossing(
            "error_promote", error_s=error_s, error_a=error_a, runs=runs, windows=1000, alpha=0.05
        )
    return {"runs": runs, **figures}


def ramp(number: int) -> tuple[float, float]:
    """Errors rise from 0.25 to 1.75 times while the share goes 1, 5, 10 % (of a scenario at 10 %)."""
    return 0.25 + 1.5 * min(number / 300.0, 1.0), (0.1, 0.5, 1.0)[min(number // 100, 2)]


def ramp_figures(scale: float) -> Figures:
    """Test 11: the shipped rule under a ramp with a trend, and what pooling would have said."""
    runs, rng = max(int(500 * scale), 50), np.random.default_rng(SEED)
    scenario = Scenario("ramp", window=400, drift=ramp)
    result = simulate(replace(BASE, max_shadow=8_000), scenario, runs=runs, rng=rng, record=300)
    n_s, x_s, n_a, x_a = (cumulated(result.recorded, name)[-1] for name in ("n_s", "x_s", "n_a", "x_a"))
    rate = (x_s + x_a) / (n_s + n_a)
    z = (x_s / n_s - x_a / n_a) / np.sqrt(rate * (1 - rate) * (1 / n_s + 1 / n_a))
    return {
        "runs": runs,
        "A/A aborts": result.share(ABORTED),
        "A/A promotes": result.share(PROMOTED),
        "pooled z-test flags": float(np.mean(np.abs(z) > 1.96)),
    }


def sticky_figures(scale: float) -> Figures:
    """Test 12: 20 requests per key, correlation 0.3; keys alive at once or in bursts, counted in three ways."""
    runs = max(int(300 * scale), 60)
    return {
        "runs": runs,
        "spread, per request: promote at the 9 % edge": _sticky(0.09, runs, once=False, name="error_promote"),
        "spread, key once: promote at the 9 % edge": _sticky(0.09, runs, once=True, name="error_promote"),
        "spread, key once: A/A aborts (2x)": _sticky(0.04, runs, once=True, name="ratio_abort", alpha=0.0125),
        "spread, per request: A/A aborts (2x)": _sticky(
            0.04, runs, once=False, name="ratio_abort", alpha=0.0125
        ),
        "burst, key mean: promote at the 9 % edge": _burst(0.09, runs, "error_promote", 0.05),
        "burst, key mean: A/A aborts (2x)": _burst(0.04, runs, "ratio_abort", 0.0125),
    }


def _key_rates(rng: np.random.Generator, mean: float, shape: tuple[int, ...], icc: float = 0.3) -> Floats:
    weight = 1.0 / icc - 1.0
    return rng.beta(mean * weight, (1.0 - mean) * weight, shape)


def _sticky(
    error_s: float, runs: int, *, once: bool, name: str, alpha: float = 0.05, keys: int = 500
) -> float:
    """Keys live together for 20 requests each; a window holds 100 requests of random living keys."""
    rng, spec = np.random.default_rng(SEED), specs(BASE)[name]
    assert isinstance(spec, EProcessSpec)
    state = EProcessState.start(spec, (runs,))
    life = keys * 20 // 100
    for window in range(6 * life):
        if window % life == 0:
            is_shadow = rng.random((runs, keys)) < 0.1
            rates = np.where(
                is_shadow, _key_rates(rng, error_s, (runs, keys)), _key_rates(rng, 0.04, (runs, keys))
            )
            seen = np.zeros((runs, keys), dtype=bool)
        picks = rng.integers(keys, size=(runs, 100))
        failed = rng.random((runs, 100)) < np.take_along_axis(rates, picks, 1)
        shadow = np.take_along_axis(is_shadow, picks, 1)
        counted = ~np.take_along_axis(seen, picks, 1) if once else np.ones_like(failed)
        np.put_along_axis(seen, picks, True, 1)
        sums = [(mask & counted).sum(1) for mask in (shadow, shadow & failed, ~shadow, ~shadow & failed)]
        state = step(spec, state, *sums)
    return float(np.mean(state.max_log_e >= -np.log(alpha)))


def _burst(error_s: float, runs: int, name: str, alpha: float) -> float:
    """All 20 requests of a key fall into one window of 100 keys; the key counts with its mean."""
    rng, spec = np.random.default_rng(SEED), specs(BASE)[name]
    assert isinstance(spec, EProcessSpec)
    state = EProcessState.start(spec, (runs,))
    for _ in range(400):
        is_shadow = rng.random((runs, 100)) < 0.1
        rates = np.where(is_shadow, _key_rates(rng, error_s, (runs, 100)), _key_rates(rng, 0.04, (runs, 100)))
        mean = rng.binomial(20, rates) / 20.0
        n_s = is_shadow.sum(1)
        state = step(spec, state, n_s, (mean * is_shadow).sum(1), 100 - n_s, (mean * ~is_shadow).sum(1))
    return float(np.mean(state.max_log_e >= -np.log(alpha)))


def hung_canary(seed: int, *, by_assignment: bool, seconds: int = 90, rate: int = 500) -> VerdictKind:
    """Test 13: 12 % of the shadow's requests hang for 30 s; judged by assignment, or (wrongly) by arrival."""
    rng = np.random.default_rng(seed)
    policy = replace(BASE, domains=(), stale_ttl_s=1e6)
    state = CanaryState.begin(policy, now=0.0, baseline=latency.dense(_arm(rng, 3000, 0.04).latency))
    windows = PartitionWindows(WindowPolicy(grace_s=1.0))
    arriving: dict[int, list[tuple[str, str, Outcome]]] = {}
    offset = 0
    for second in range(seconds):
        for _ in range(rate):
            name, offset = f"q{offset}", offset + 1
            arm = "shadow" if rng.random() < 0.1 else "active"
            ok = bool(rng.random() >= (0.12 if arm == "shadow" else 0.04))
            takes = float(rng.lognormal(np.log(200.0), 0.5)) if ok or arm == "active" else 30_000.0
            outcome = Outcome(name, ok, second + takes / 1000, takes if ok else None, 0.0)
            arriving.setdefault(int(second + takes / 1000), []).append((name, arm, outcome))
            windows.assign(
                Assignment(
                    name, name, "shadow" if arm == "shadow" else "active", "gen", 1, 1000, second, second + 30
                ),
                offset,
            )
        here = arriving.pop(second, [])
        for number, (_, _, outcome) in enumerate(here):
            windows.outcome(outcome, offset * 10 + number)
        if by_assignment:
            tallies: tuple[WindowTally, ...] = windows.close(float(second))
        else:
            arms = [tally_arm((n, o) for n, a, o in here if a == side) for side in ("active", "shadow")]
            tallies = (WindowTally(float(second), second + 1.0, 1, 1000, Arms(*arms)),)
        for tally in tallies:
            state = advance(policy, state, tally, float(second))
        verdict = judge(policy, state, float(second))
        if verdict.kind is not VerdictKind.HOLD:
            return verdict.kind
    return VerdictKind.HOLD


def hung_figures(scale: float) -> Figures:
    """Share of hung canaries promoted, by assignment and by arrival."""
    runs = max(int(20 * scale), 2)
    figures: Figures = {"runs": runs}
    for by_assignment in (True, False):
        kinds = [hung_canary(SEED + i, by_assignment=by_assignment) for i in range(runs)]
        name = "by assignment" if by_assignment else "by arrival"
        figures[f"{name}: promoted"] = kinds.count(VerdictKind.PROMOTE) / runs
        figures[f"{name}: aborted"] = kinds.count(VerdictKind.ABORT) / runs
    return figures


def srm_figures(scale: float) -> Figures:
    """Test 14: sequential key-split test at every 100 keys."""
    runs, rng = max(int(2000 * scale), 200), np.random.default_rng(SEED)
    figures: Figures = {"runs": runs}
    for true_share in (0.08, 0.10):
        looks = 1000
        shadow = np.cumsum(rng.binomial(100, true_share, (looks, runs)), axis=0)
        total = 100.0 * np.arange(1, looks + 1)[:, None]
        found = split_log_e(shadow, total - shadow, 0.1) >= np.log(BASE.srm_threshold)
        first = first_row(found)
        figures[f"{true_share:.0%} for 10 %: held within 10,000 keys"] = float(np.mean(first < 100))
        figures[f"{true_share:.0%} for 10 %: held within 100,000 keys"] = float(np.mean(first < looks))
        if found.any():
            figures[f"{true_share:.0%} for 10 %: median keys"] = float(
                np.median(first[first < looks] + 1) * 100
            )
    return figures


def rollback_figures(scale: float) -> Figures:
    """Test 17: the error trigger request by request; false alarms at 8 and 10 %, delay after a jump from 4 %."""
    spec, rng = trigger_specs(TriggerPolicy())["error"], np.random.default_rng(SEED)
    quiet = int(200_000 * min(1.0, 4 * scale))
    figures: Figures = {"runs": 100, "quiet requests": quiet}
    for rate in (0.08, 0.10):
        state, alarmed = ECusumState.start(spec, (100,)), np.zeros(100, dtype=bool)
        for _ in range(quiet):
            state = detect(spec, state, np.ones(100), rng.random(100) < rate)
            alarmed |= is_alarm(spec, state)
        figures[f"false alarms at {rate:.0%}"] = float(alarmed.mean())
    for rate in (0.30, 0.50, 1.0):
        state, delay = ECusumState.start(spec, (1000,)), np.zeros(1000)
        for _ in range(2000):
            state = detect(spec, state, np.ones(1000), rng.random(1000) < 0.04)
        for number in range(1, 2001):
            state = detect(spec, state, np.ones(1000), rng.random(1000) < rate)
            delay = np.where((delay == 0) & is_alarm(spec, state), number, delay)
            if delay.all():
                break
        figures[f"delay 4 -> {rate:.0%}: median"] = float(np.median(delay))
        figures[f"delay 4 -> {rate:.0%}: p95"] = float(np.quantile(delay, 0.95))
    return figures


def window_size_figures(scale: float) -> Figures:
    """Test 19: tests 1 and 4 with windows of 10 and 1000 requests."""
    figures: Figures = {}
    for size in (10, 1000):
        policy = replace(BASE, window_units=size)
        for scenario, runs in (
            (Scenario("A/A", window=size), 300),
            (Scenario("9 %", error_s=0.09, window=size), 100),
        ):
            runs = max(int(runs * scale * (0.3 if size == 10 else 1.0)), 20)
            result = simulate(policy, scenario, runs=runs, rng=np.random.default_rng(SEED))
            figures[f"window {size}, {scenario.name}"] = {
                "runs": runs,
                **summary(result.decision, result.units),
            }
    return figures


def _arm(rng: np.random.Generator, n: int, error: float) -> ArmTally:
    failed = int(rng.binomial(n, error))
    bins, weights = np.unique(
        latency.bins_of(rng.lognormal(np.log(200.0), 0.5, n - failed)), return_counts=True
    )
    pairs = tuple((int(i), float(w)) for i, w in zip(bins, weights, strict=True))
    return ArmTally(
        queries=n, units=n, errors=float(failed), answered=n - failed, latency=pairs, toxic=1.0, new_keys=n
    )


def cost_figures(_: float) -> Figures:
    """CPU time of one window: advance and judge, five scopes, 100 and 1000 requests a window."""
    rng = np.random.default_rng(SEED)
    figures: Figures = {}
    for size in (100, 1000):
        policy = replace(BASE, max_shadow=10**9)
        baseline = latency.dense(_arm(rng, 3000, 0.04).latency)
        state = CanaryState.begin(policy, now=0.0, baseline=baseline)
        spent: list[float] = []
        for number in range(200):
            n_s = int(size * 0.1)
            scopes = {
                name: Arms(_arm(rng, (size - n_s) // 4, 0.04), _arm(rng, n_s // 4, 0.04))
                for name in policy.domains
            }
            total = Arms(_arm(rng, size - n_s, 0.04), _arm(rng, n_s, 0.04))
            tally = WindowTally(float(number), number + 1.0, 1, 1000, total, scopes)
            begun = time.process_time()
            state = advance(policy, state, tally, number + 1.0)
            judge(policy, state, number + 1.0)
            spent.append(1000.0 * (time.process_time() - begun))
        figures[f"ms per window of {size}: median"] = float(np.median(spent))
        figures[f"ms per window of {size}: p95"] = float(np.quantile(spent, 0.95))
    return figures


SECTIONS: dict[str, Callable[[float], Figures]] = {
    "edge": edge_figures,
    "ramp": ramp_figures,
    "sticky keys": sticky_figures,
    "hung requests": hung_figures,
    "key split": srm_figures,
    "rollback": rollback_figures,
    "window size": window_size_figures,
    "cost": cost_figures,
}
