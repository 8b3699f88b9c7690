"""The canary's memory: what `advance` keeps of every window, as values that replay bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import latency
from .eprocess import EProcessState, Floats
from .evidence import (
    ABORT_GATES,
    HARM,
    Counts,
    abort_log_e,
    is_harmful,
    start_processes,
    step_processes,
)
from .policy import CanaryPolicy
from .srm import SrmState, count_keys
from .tally import Arms, ArmTally, WindowTally, merge

P95 = 0.95


@dataclass(frozen=True)
class Totals:
    """Sums over the whole canary, for data quality and for the record."""

    windows: int = 0
    queries_s: int = 0
    queries_a: int = 0
    units_s: int = 0
    units_a: int = 0
    answered_s: int = 0
    answered_a: int = 0
    missing_s: int = 0
    missing_a: int = 0
    unlabelled_s: float = 0.0
    untimed_s: float = 0.0
    untimed_a: float = 0.0
    late: int = 0
    duplicates: int = 0
    warmup_units: int = 0

    def plus(self, tally: WindowTally) -> Totals:
        """The sums after one more tally."""
        s, a = tally.total.shadow, tally.total.active
        return replace(
            self,
            windows=self.windows + 1,
            queries_s=self.queries_s + s.queries,
            queries_a=self.queries_a + a.queries,
            units_s=self.units_s + s.units,
            units_a=self.units_a + a.units,
            answered_s=self.answered_s + s.answered,
            answered_a=self.answered_a + a.answered,
            missing_s=self.missing_s + s.missing,
            missing_a=self.missing_a + a.missing,
            unlabelled_s=self.unlabelled_s + s.toxic_missing,
            untimed_s=self.untimed_s + s.latency_missing,
            untimed_a=self.untimed_a + a.latency_missing,
            late=self.late + tally.late,
            duplicates=self.duplicates + tally.duplicates,
        )


@dataclass(frozen=True, eq=False)
class CanaryState:
    """Everything a verdict depends on besides the policy and the time. Compare two states by `to_json`."""

    started_at: float
    processes: Mapping[str, EProcessState]
    """Harm processes have one row for all traffic and one per domain; the others have one row."""
    baseline: Floats
    """Active latencies from before the window at hand, before and during the canary: gives x_w."""
    latency_s: Floats
    latency_a: Floats
    """Both arms since the warm-up, for the literal p95."""
    fresh_at: float
    totals: Totals = field(default_factory=Totals)
    pending: WindowTally | None = None
    srm: SrmState = field(default_factory=SrmState)
    srm_at: float | None = None
    coverage_bad_at: float | None = None
    silent_at: float | None = None
    """When the shadow left the first of its queries unanswered after the last one it answered; None while it answers.
    """
    x_w_ms: float | None = None
    abort_gate: str | None = None
    """The gate that ended the canary at some earlier window; evidence of harm is never taken back."""
    windows_digest: str = ""
    """Hash chain over every tally, so that a record of a decision names exactly what it was made from."""

    @classmethod
    def begin(cls, policy: CanaryPolicy, *, now: float, baseline: Floats | None = None) -> CanaryState:
        """A canary that has seen nothing; `baseline` is a dense histogram of 2,000+ active latencies."""
        rows = 1 + len(policy.domains)
        shapes = start_processes(policy, (rows,))
        single = start_processes(policy, (1,))
        return cls(
            started_at=now,
            processes={name: shapes[name] if name in HARM else single[name] for name in shapes},
            baseline=np.zeros(latency.BINS) if baseline is None else baseline,
            latency_s=np.zeros(latency.BINS),
            latency_a=np.zeros(latency.BINS),
            fresh_at=now,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` of it continues with the same bits."""
        histograms = {name: _pairs(getattr(self, name)) for name in _HISTOGRAMS}
        return {
            **{name: getattr(self, name) for name in (*_PLAIN, *_LATER)},
            **histograms,
            "processes": {name: state.to_json() for name, state in sorted(self.processes.items())},
            "totals": dict(self.totals.__dict__),
            "pending": None if self.pending is None else self.pending.to_json(),
            "srm": self.srm.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CanaryState:
        """The state that `to_json` described."""
        pending = data["pending"]
        plain: dict[str, Any] = {name: data[name] for name in _PLAIN}
        plain |= {name: data.get(name) for name in _LATER}
        histograms: dict[str, Any] = {
            name: latency.dense(latency.sparse_from_json(data[name])) for name in _HISTOGRAMS
        }
        return cls(
            **plain,
            **histograms,
            processes={name: EProcessState.from_json(p) for name, p in data["processes"].items()},
            totals=Totals(**data["totals"]),
            pending=None if pending is None else WindowTally.from_json(pending),
            srm=SrmState.from_json(data["srm"]),
        )


_HISTOGRAMS = ("baseline", "latency_s", "latency_a")
_PLAIN = (
    "started_at",
    "fresh_at",
    "srm_at",
    "coverage_bad_at",
    "x_w_ms",
    "abort_gate",
    "windows_digest",
)
_LATER = ("silent_at",)
"""Checkpoints of earlier versions lack these."""


def _pairs(weights: Floats) -> list[list[float | int]]:
    return [[index, weight] for index, weight in latency.sparse(weights)]


def observe_baseline(baseline: Floats | None, tally: WindowTally, *, keep: float = 20_000.0) -> Floats:
    """Active latency before a canary: add a window, halve the past beyond `keep` answers (an exact step)."""
    base = np.zeros(latency.BINS) if baseline is None else baseline
    return faded(base + latency.dense(tally.total.active.latency), keep)


def _watched(policy: CanaryPolicy, state: CanaryState, window: WindowTally) -> Floats:
    return observe_baseline(state.baseline, window, keep=float(policy.baseline_units))


def faded(weights: Floats, keep: float = 20_000.0) -> Floats:
    """Histograms (shape B + [bins]), halved where they hold more than `keep`."""
    return np.where(weights.sum(axis=-1, keepdims=True) > keep, weights * 0.5, weights)


def advance(policy: CanaryPolicy, state: CanaryState, tally: WindowTally, now: float) -> CanaryState:
    """The state after one closed window, merged over all partitions.

    Pure and deterministic. Tallies must come in the order of their windows. Small windows are pooled until
    both arms have traffic; the boundary depends on counts of assignments only, never on outcomes. A change of
    epoch or share closes the pool, so ramp steps are never mixed. `now` is the time of the log entry, in
    seconds.
    """
    if tally.is_empty:
        return replace(state, totals=state.totals.plus(tally))
    state = _note(policy, state, tally, now)
    pending = state.pending
    if pending is not None and (pending.epoch, pending.canary_bp) != (tally.epoch, tally.canary_bp):
        state = _close(policy, replace(state, pending=None), pending, now)
        pending = None
    pooled = tally if pending is None else merge(pending, tally)
    if not _is_full(policy, pooled):
        return replace(state, pending=pooled)
    return _close(policy, replace(state, pending=None), pooled, now)


def _note(policy: CanaryPolicy, state: CanaryState, tally: WindowTally, now: float) -> CanaryState:
    """Data quality is kept from every tally at once, pooled or not."""
    total = tally.total
    srm = count_keys(
        state.srm,
        epoch=tally.epoch,
        canary_bp=tally.canary_bp,
        shadow=total.shadow.new_keys,
        active=total.active.new_keys,
    )
    is_split_wrong = srm.max_log_e >= np.log(policy.srm_threshold)
    totals = state.totals.plus(tally)
    bad = coverage(policy, totals) < policy.label_coverage
    body = json.dumps(tally.to_json(), sort_keys=True, separators=(",", ":"))
    return replace(
        state,
        srm=srm,
        srm_at=now if is_split_wrong and state.srm_at is None else state.srm_at,
        totals=totals,
        coverage_bad_at=(now if state.coverage_bad_at is None else state.coverage_bad_at) if bad else None,
        silent_at=_silent_at(state, total.shadow, now),
        windows_digest=hashlib.sha256((state.windows_digest + body).encode()).hexdigest(),
    )


def _silent_at(state: CanaryState, shadow: ArmTally, now: float) -> float | None:
    """Windows in which nobody was sent to the shadow say nothing about its silence."""
    if shadow.queries == 0:
        return state.silent_at
    if shadow.missing < shadow.queries:
        return None
    return now if state.silent_at is None else state.silent_at


def coverage(policy: CanaryPolicy, totals: Totals) -> float:
    """Lowest share of usable data so far: shadow labels, latencies of both arms, outcomes of the active arm.

    A missing shadow outcome is not poor coverage but an error of the shadow: it must abort, not hold.
    """
    shares = [1.0]
    if totals.answered_s >= policy.coverage_min_units:
        shares.append(1.0 - totals.unlabelled_s / totals.answered_s)
        shares.append(1.0 - totals.untimed_s / totals.answered_s)
    if totals.answered_a >= policy.coverage_min_units:
        shares.append(1.0 - totals.untimed_a / totals.answered_a)
    if totals.queries_a >= policy.coverage_min_units:
        shares.append(1.0 - totals.missing_a / totals.queries_a)
    return min(shares)


def _is_full(policy: CanaryPolicy, tally: WindowTally) -> bool:
    units_s, units_a = tally.total.shadow.units, tally.total.active.units
    return units_s + units_a >= policy.window_units and units_s > 0 and units_a > 0


def is_warming_up(policy: CanaryPolicy, state: CanaryState, window: WindowTally) -> bool:
    """Whether a window belongs to the cold start that was declared before the canary."""
    return (
        state.totals.warmup_units < policy.warmup_units and window.start < state.started_at + policy.warmup_s
    )


def _close(policy: CanaryPolicy, state: CanaryState, window: WindowTally, now: float) -> CanaryState:
    units_s, units_a = window.total.shadow.units, window.total.active.units
    if units_s == 0 or units_a == 0:
        return replace(state, baseline=_watched(policy, state, window))
    cold = is_warming_up(policy, state, window)
    x_bin = yardstick_bin(policy, state.baseline)
    scopes = [window.total, *(window.domains.get(name, Arms()) for name in policy.domains)]
    counts = count(scopes, x_bin=x_bin, margin_ms=policy.p95_margin_ms)
    fresh = (
        None if window.fresh is None else count([window.fresh], x_bin=x_bin, margin_ms=policy.p95_margin_ms)
    )
    untimed = {name for name in state.processes if name.startswith("p95") and (cold or x_bin is None)}
    unproven = {name for name in state.processes if name.endswith("_promote") and cold}
    processes = step_processes(policy, state.processes, counts, fresh=fresh, skip=untimed | unproven)
    gate_log_e = abort_log_e({name: processes[name] for name in HARM})[0]
    gate = state.abort_gate
    if gate is None and bool(is_harmful(gate_log_e, policy.alpha_abort)):
        gate = ABORT_GATES[int(gate_log_e.argmax())]
    kept = state if cold else _with_latency(state, window)
    warm = state.totals.warmup_units + (units_s if cold else 0)
    return replace(
        kept,
        processes=processes,
        baseline=_watched(policy, state, window),
        fresh_at=now,
        totals=replace(state.totals, warmup_units=warm),
        x_w_ms=None if x_bin is None else float(latency.edge_ms(x_bin)),
        abort_gate=gate,
    )


def _with_latency(state: CanaryState, window: WindowTally) -> CanaryState:
    return replace(
        state,
        latency_s=state.latency_s + latency.dense(window.independent.shadow.latency),
        latency_a=state.latency_a + latency.dense(window.independent.active.latency),
    )


def yardstick_bin(policy: CanaryPolicy, baseline: Floats) -> int | None:
    """Bin whose upper edge is x_w, the active p95 before the window; None until there are enough answers."""
    if float(baseline.sum()) < policy.baseline_min_units:
        return None
    index = int(latency.quantile_bin(baseline, P95))
    return None if index >= latency.EDGE_COUNT else index


def count(scopes: list[Arms], *, x_bin: int | None, margin_ms: float) -> Counts:
    """The sums the e-processes read, one batch row per scope."""
    edge = 0 if x_bin is None else x_bin
    up, down = (int(v) for v in latency.threshold_bins(latency.EDGES_MS[edge] + margin_ms))
    rows = [_row(arms, edge=edge, up=up, down=down) for arms in scopes]
    return Counts(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


def _above(arm: ArmTally, edge: int) -> float:
    return sum(weight for index, weight in arm.latency if index > edge)


def _row(arms: Arms, *, edge: int, up: int, down: int) -> tuple[float, ...]:
    s, a = arms.shadow, arms.active
    slow_a = _above(a, edge)
    return (
        s.units,
        s.errors,
        a.units,
        a.errors,
        s.answered,
        a.answered,
        _above(s, up),
        _above(s, down) + s.latency_missing,
        slow_a + a.latency_missing,
        slow_a,
        s.toxic,
        s.toxic + s.toxic_missing,
    )
