"""A thousand canaries at once, judged by the functions the gatekeeper calls.

For calibrating a policy before it is trusted: how often does it stop a good candidate, promote a bad one, and
after how many shadow units? Randomness is an argument, so every figure can be had again from its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from . import latency
from .canary_state import P95, faded
from .eprocess import EProcessState, Floats
from .evidence import (
    Counts,
    abort_log_e,
    is_error_literally_fine,
    is_harmful,
    is_proven_safe,
    is_traffic_enough,
    promote_log_e,
    start_processes,
    step_processes,
)
from .policy import CanaryPolicy

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

PROMOTED, ABORTED, UNDECIDED = 1, -1, 0
_POOL = 1 << 18
FIRST_BIN = int(latency.bins_of(5.0))
"""Simulated histograms hold the bins from here on; nothing drawn is faster or slower than they reach."""
_BINS = int(latency.bins_of(20_000.0)) - FIRST_BIN


@dataclass(frozen=True)
class Scenario:
    """What is true of both arms: error rates, a shift of the shadow's lognormal latency, its toxicity, its
    share.
    """

    name: str
    error_s: float = 0.04
    error_a: float = 0.04
    shift_ms: float = 0.0
    toxic_s: float = 0.01
    share: float = 0.1
    window: int = 100
    """Requests per window, both arms together."""
    median_ms: float = 200.0
    sigma: float = 0.5
    """Shape of the lognormal: p95 is 455 ms at the defaults."""
    baseline: int = 2500
    """Active answers before the canary."""
    drift: Callable[[int], tuple[float, float]] = field(default=lambda _: (1.0, 1.0))
    """Window number to (factor on both error rates, factor on the share)."""


@dataclass(frozen=True, eq=False)
class Window:
    """One window of R canaries; `bins_*` are counts per latency bin (shape [R, bins])."""

    n_s: Floats
    x_s: Floats
    n_a: Floats
    x_a: Floats
    toxic_s: Floats
    bins_s: Floats
    bins_a: Floats


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The end of each run: +1 promoted, -1 aborted, 0 inconclusive; shadow units at the decision; gate index."""

    decision: Ints
    units: Floats
    gate: Ints
    recorded: tuple[Window, ...] = ()
    baseline: Floats | None = None
    """Latency histograms from before the canary, when windows were recorded."""

    def share(self, decision: int) -> float:
        """Share of runs that ended so."""
        return float(np.mean(self.decision == decision))

    def units_at(self, quantile: float, decision: int | None = None) -> float:
        """Quantile of shadow units at the decision, among decided runs or those with one decision."""
        chosen = self.decision != UNDECIDED if decision is None else self.decision == decision
        return float(np.quantile(self.units[chosen], quantile)) if chosen.any() else float("nan")


class Traffic:
    """Draws windows of a scenario for any number of runs."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator) -> None:
        self._scenario = scenario
        self._rng = rng
        grid = (np.arange(_POOL) + 0.5) / _POOL
        base = scenario.median_ms * np.exp(scenario.sigma * ndtri(grid))
        self._pool_a = _local_bins(base)
        self._pool_s = _local_bins(base + scenario.shift_ms)

    def baseline(self, runs: int) -> Floats:
        """Histograms of active latency before the canary (shape [runs, bins])."""
        picks = self._rng.integers(_POOL, size=(runs, self._scenario.baseline))
        return _histogram(self._pool_a[picks], np.ones(picks.shape, dtype=bool))

    def window(self, number: int, runs: int) -> Window:
        """One window of every run."""
        scenario, rng = self._scenario, self._rng
        error, share = scenario.drift(number)
        shape = (runs, scenario.window)
        n_s = rng.binomial(scenario.window, scenario.share * share, runs)
        is_shadow = np.arange(scenario.window) < n_s[:, None]
        rates = np.where(is_shadow, scenario.error_s * error, scenario.error_a * error)
        answered = rng.random(shape) >= rates
        picks = rng.integers(_POOL, size=shape)
        bins = np.where(is_shadow, self._pool_s[picks], self._pool_a[picks])
        good_s = (answered & is_shadow).sum(axis=1)
        return Window(
            n_s=n_s.astype(float),
            x_s=(n_s - good_s).astype(float),
            n_a=(scenario.window - n_s).astype(float),
            x_a=(~answered & ~is_shadow).sum(axis=1).astype(float),
            toxic_s=rng.binomial(good_s, scenario.toxic_s).astype(float),
            bins_s=_histogram(bins, answered & is_shadow),
            bins_a=_histogram(bins, answered & ~is_shadow),
        )


def _local_bins(latency_ms: Floats) -> NDArray[np.int32]:
    return np.clip(latency.bins_of(latency_ms) - FIRST_BIN, 0, _BINS - 1).astype(np.int32)


def _histogram(bins: NDArray[np.int32], kept: Bools) -> Floats:
    runs = len(bins)
    flat = (bins + np.arange(runs, dtype=np.int64)[:, None] * _BINS)[kept]
    return np.bincount(flat, minlength=runs * _BINS).reshape(runs, _BINS).astype(float)


def _above(weights: Floats, index: Ints) -> Floats:
    """Row sums of the bins above each row's index."""
    total = weights.cumsum(axis=1)
    at = np.clip(index, 0, _BINS - 1)[:, None]
    above: Floats = total[:, -1] - np.take_along_axis(total, at, axis=1)[:, 0]
    return np.where(index < 0, total[:, -1], above)


def window_counts(policy: CanaryPolicy, window: Window, x_bin: Ints) -> Counts:
    """What the e-processes read of a window, given the bin of x_w that was known before it."""
    up, down = latency.threshold_bins(latency.EDGES_MS[x_bin + FIRST_BIN] + policy.p95_margin_ms)
    slow_a = _above(window.bins_a, x_bin)
    return Counts(
        units_s=window.n_s,
        errors_s=window.x_s,
        units_a=window.n_a,
        errors_a=window.x_a,
        answered_s=window.n_s - window.x_s,
        answered_a=window.n_a - window.x_a,
        slow_s_harm=_above(window.bins_s, up - FIRST_BIN),
        slow_s_safe=_above(window.bins_s, down - FIRST_BIN),
        slow_a_harm=slow_a,
        slow_a_safe=slow_a,
        toxic_s_harm=window.toxic_s,
        toxic_s_safe=window.toxic_s,
    )


@dataclass(eq=False)
class _Runs:
    """The runs that are still undecided."""

    index: Ints
    processes: dict[str, EProcessState]
    baseline: Floats
    latency_s: Floats
    latency_a: Floats
    pending: Counts
    seen: Floats
    warm: Floats

    def keep(self, rows: Bools) -> None:
        """Forget the runs outside `rows`."""
        self.index = self.index[rows]
        self.processes = {name: state.take(rows) for name, state in self.processes.items()}
        self.baseline, self.latency_s = self.baseline[rows], self.latency_s[rows]
        self.latency_a, self.seen, self.warm = self.latency_a[rows], self.seen[rows], self.warm[rows]
        self.pending = _each(lambda v: v[rows], self.pending)


def _each(change: Callable[..., Floats], *counts: Counts) -> Counts:
    return Counts(*(change(*(getattr(c, f.name) for c in counts)) for f in fields(Counts)))


def simulate(
    policy: CanaryPolicy, scenario: Scenario, *, runs: int, rng: np.random.Generator, record: int = 0
) -> Outcomes:
    """Run the whole canary rule to a decision or to `max_shadow` in every run.

    The first `record` windows of every run are drawn whether decided or not, and returned, so that other
    rules can be put to the same streams. Warm-up ends by units alone; the key-split and freshness rules are
    not simulated here.
    """
    traffic = Traffic(scenario, rng)
    state = _begin(policy, traffic, runs)
    baseline = state.baseline if record else None
    decision, units = np.zeros(runs, dtype=np.int64), np.zeros(runs)
    gate = np.full(runs, -1, dtype=np.int64)
    recorded: list[Window] = []
    for number in _count():
        if not len(state.index) and number >= record:
            break
        whole = traffic.window(number, runs if number < record else len(state.index))
        if number < record:
            recorded.append(whole)
            whole = _rows(whole, state.index)
        if not len(state.index):
            continue
        _step(policy, state, whole)
        verdict, gates = _decide(policy, state)
        ended = (verdict != UNDECIDED) | (state.seen >= policy.max_shadow)
        who = state.index[ended]
        decision[who], units[who], gate[who] = verdict[ended], state.seen[ended], gates[ended]
        if ended.any():
            state.keep(~ended)
    return Outcomes(decision, units, gate, tuple(recorded), baseline)


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _rows(window: Window, rows: Ints) -> Window:
    return replace(window, **{f.name: getattr(window, f.name)[rows] for f in fields(Window)})


def _begin(policy: CanaryPolicy, traffic: Traffic, runs: int) -> _Runs:
    zero = np.zeros(runs)
    return _Runs(
        index=np.arange(runs),
        processes=start_processes(policy, (runs,)),
        baseline=traffic.baseline(runs),
        latency_s=np.zeros((runs, _BINS)),
        latency_a=np.zeros((runs, _BINS)),
        pending=Counts(*(zero for _ in fields(Counts))),
        seen=zero,
        warm=zero,
    )


def _step(policy: CanaryPolicy, state: _Runs, window: Window) -> None:
    x_bin = np.minimum(latency.quantile_bin(state.baseline, P95), _BINS - 1)
    counts = _each(np.add, state.pending, window_counts(policy, window, x_bin))
    units = counts.units_s + counts.units_a
    is_full = (counts.units_s > 0) & (counts.units_a > 0) & (units >= policy.window_units)
    state.pending = _each(lambda v: np.where(is_full, 0.0, v), counts)
    closed = _each(lambda v: np.where(is_full, v, 0.0), counts)
    is_cold = state.warm < policy.warmup_units
    after = step_processes(policy, state.processes, closed)
    if is_cold.any():
        for name in after:
            if name.endswith("_promote") or name.startswith("p95"):
                after[name] = _where(is_cold, state.processes[name], after[name])
    state.processes = after
    state.warm = state.warm + np.where(is_cold, closed.units_s, 0.0)
    state.seen = state.seen + window.n_s
    kept = ~is_cold[:, None]
    state.latency_s = state.latency_s + window.bins_s * kept
    state.latency_a = state.latency_a + window.bins_a * kept
    state.baseline = faded(state.baseline + window.bins_a, float(policy.baseline_units))


def _where(rows: Bools, yes: EProcessState, no: EProcessState) -> EProcessState:
    def pick(name: str) -> Floats:
        left, right = getattr(yes, name), getattr(no, name)
        picked: Floats = np.where(rows.reshape(rows.shape + (1,) * (left.ndim - 1)), left, right)
        return picked

    return EProcessState(*(pick(f.name) for f in fields(EProcessState)))


def _decide(policy: CanaryPolicy, state: _Runs) -> tuple[Ints, Ints]:
    harm = abort_log_e(state.processes)
    aborted = is_harmful(harm, policy.alpha_abort)
    safe = is_proven_safe(promote_log_e(state.processes), policy.alpha_promote) & ~aborted
    if safe.any():
        safe = safe & _is_promotable(policy, state, safe)
    return np.where(aborted, ABORTED, np.where(safe, PROMOTED, UNDECIDED)), harm.argmax(axis=1)


def _is_promotable(policy: CanaryPolicy, state: _Runs, rows: Bools) -> Bools:
    """Traffic and literal limits, looked at for the given rows only."""
    fine = np.zeros(len(rows), dtype=bool)
    error, harm = (state.processes[name].take(rows) for name in ("error_promote", "error_abort"))
    toxic = state.processes["toxicity_promote"].take(rows)
    within, _ = is_error_literally_fine(policy, error.n_s, error.x_s, error.n_a, error.x_a)
    _, not_doubled = is_error_literally_fine(policy, harm.n_s, harm.x_s, harm.n_a, harm.x_a)
    p95_s, p95_a = (
        latency.edge_ms(latency.quantile_bin(weights[rows], P95) + FIRST_BIN)
        for weights in (state.latency_s, state.latency_a)
    )
    fine[rows] = (
        is_traffic_enough(policy, error.n_s, error.x_s)
        & within
        & not_doubled
        & (p95_s <= p95_a + policy.p95_margin_ms)
        & (toxic.x_s <= policy.toxicity_max * np.maximum(toxic.n_s, 1.0))
    )
    return fine
