"""Rollback triggers: the watch kept on the serving twin during bake and in the steady phase.

One e-CUSUM per limit. Fixed windows of 50 to 200 requests alarm falsely within any long quiet stretch; this
detector's false alarms are at least `alarm` updates apart even at the limit itself, and an outage is still
seen within about ten requests. A manual rollback needs none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from twinloop.errors import ConfigError

from . import latency
from .ecusum import ECusumSpec, ECusumState, detect, evidence, is_alarm
from .gate_rows import bounded_exp
from .tally import ArmTally, WindowTally

SLOW_SHARE = 0.05
"""p95 above a limit means: more than this share of answers is slower."""


@dataclass(frozen=True)
class TriggerPolicy:
    """Limits of the serving twin."""

    error_max: float = 0.15
    """Highest error rate."""
    p95_ms: float = 1000.0
    """Highest p95 of the latencies: no more than 5 % of answers may be slower."""
    toxicity_max: float = 0.05
    """Highest share of flagged answers."""
    alarm: float = 1e4
    """Expected number of window updates between false alarms at the very limit."""
    stale_ttl_s: float = 120.0
    """How long without traffic before the watch is called blind; it says so and fires nothing."""
    min_windows: int = 1
    """Windows with bad outcomes that an alarm needs, since its evidence was last nil: what one stall delays arrives
    together, and the detector takes outcomes for independent."""

    def __post_init__(self) -> None:
        for name in ("error_max", "toxicity_max"):
            if not 0.0 < getattr(self, name) < 0.75:
                raise ConfigError(
                    f"rollback triggers: {name} must lie between 0 and 0.75; correct the configuration"
                )
        if self.min_windows < 1:
            raise ConfigError("rollback triggers: min_windows must be at least 1; correct the configuration")
        for name, least in (("p95_ms", 0.0), ("alarm", 1.0), ("stale_ttl_s", 0.0)):
            if not getattr(self, name) > least:
                raise ConfigError(
                    f"rollback triggers: {name} must be above {least:g}; correct the configuration"
                )


def trigger_specs(policy: TriggerPolicy) -> dict[str, ECusumSpec]:
    """The detector of each trigger by name."""
    return {
        "error": ECusumSpec(policy.error_max, raised_rates(policy.error_max), policy.alarm),
        "p95": ECusumSpec(SLOW_SHARE, raised_rates(SLOW_SHARE), policy.alarm),
        "toxicity": ECusumSpec(policy.toxicity_max, raised_rates(policy.toxicity_max), policy.alarm),
    }


def raised_rates(limit: float) -> tuple[float, ...]:
    """Alternatives above a limit, from a third of the way up to a near outage (.2 .25 .35 .5 .8 for .15)."""
    fixed = tuple(rate for rate in (0.2, 0.25, 0.35, 0.5, 0.8) if rate > 1.3 * limit)
    near = tuple(limit * factor for factor in (1.6, 2.5)) if limit < 0.12 else ()
    return tuple(sorted({*near, *fixed, (1.0 + limit) / 2.0} if not fixed else {*near, *fixed}))


@dataclass(frozen=True, eq=False)
class TriggerState:
    """Detectors and the latest sums of the serving twin since the watch began."""

    started_at: float
    detectors: Mapping[str, ECusumState]
    fresh_at: float
    counts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Trigger name to (n, x) since the start, for the record."""
    fired: str | None = None
    fired_at: float | None = None
    bad_windows: Mapping[str, int] = field(default_factory=dict)
    """Trigger name to windows with bad outcomes since its evidence was last nil; kept where an alarm needs several."""

    @classmethod
    def begin(cls, policy: TriggerPolicy, *, now: float) -> TriggerState:
        """A watch that has seen nothing."""
        specs = trigger_specs(policy)
        return cls(
            started_at=now,
            detectors={name: ECusumState.start(spec) for name, spec in specs.items()},
            fresh_at=now,
            counts=dict.fromkeys(specs, (0.0, 0.0)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        several = {"bad_windows": dict(sorted(self.bad_windows.items()))} if self.bad_windows else {}
        return {
            **several,
            "started_at": self.started_at,
            "detectors": {name: state.to_json() for name, state in sorted(self.detectors.items())},
            "fresh_at": self.fresh_at,
            "counts": {name: list(pair) for name, pair in sorted(self.counts.items())},
            "fired": self.fired,
            "fired_at": self.fired_at,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TriggerState:
        """The state that `to_json` described."""
        return cls(
            started_at=data["started_at"],
            detectors={name: ECusumState.from_json(d) for name, d in data["detectors"].items()},
            fresh_at=data["fresh_at"],
            counts={name: (pair[0], pair[1]) for name, pair in data["counts"].items()},
            fired=data["fired"],
            fired_at=data["fired_at"],
            bad_windows=dict(data.get("bad_windows", {})),
        )


def watch(policy: TriggerPolicy, state: TriggerState, tally: WindowTally, now: float) -> TriggerState:
    """The state after one closed window, merged over partitions; reads the active arm alone. Pure."""
    arm = tally.total.active
    if arm.units == 0:
        return state
    seen = _seen(policy, arm)
    detectors, counts, fired = dict(state.detectors), dict(state.counts), state.fired
    bad = dict(state.bad_windows)
    for name, spec in trigger_specs(policy).items():
        n, x = seen[name]
        if n <= 0:
            continue
        detectors[name] = detect(spec, detectors[name], n, x)
        counts[name] = (counts[name][0] + n, counts[name][1] + x)
        if policy.min_windows > 1:
            was_nil = bool(np.all(state.detectors[name].log_m <= 0.0))
            bad[name] = (0 if was_nil else bad.get(name, 0)) + (x > 0)
        is_seen_enough = policy.min_windows == 1 or bad[name] >= policy.min_windows
        if fired is None and is_seen_enough and bool(is_alarm(spec, detectors[name])):
            fired = name
    fired_at = now if fired is not None and state.fired is None else state.fired_at
    return replace(
        state,
        detectors=detectors,
        counts=counts,
        fresh_at=now,
        fired=fired,
        fired_at=fired_at,
        bad_windows=bad,
    )


def _seen(policy: TriggerPolicy, arm: ArmTally) -> dict[str, tuple[float, float]]:
    up, _ = (int(v) for v in latency.threshold_bins(policy.p95_ms))
    slow = sum(weight for index, weight in arm.latency if index > up)
    return {
        "error": (float(arm.units), arm.errors),
        "p95": (float(arm.answered), slow),
        "toxicity": (float(arm.answered), arm.toxic),
    }


@dataclass(frozen=True)
class TriggerRow:
    """One trigger in numbers and in words."""

    name: str
    limit: float
    n: float
    rate: float | None
    evidence: float
    alarm: float
    is_fired: bool
    line: str


@dataclass(frozen=True)
class TriggerVerdict:
    """Whether to roll back, and why; `is_blind` says that no traffic was seen for `stale_ttl_s`."""

    is_fired: bool
    reason_code: str
    """The trigger that fired first, or `quiet`, or `blind`."""
    is_blind: bool
    rows: tuple[TriggerRow, ...]
    fired_at: float | None


def judge_triggers(policy: TriggerPolicy, state: TriggerState, now: float) -> TriggerVerdict:
    """The verdict at `now`; an alarm stays until a new watch begins."""
    rows = tuple(_row(policy, state, name, spec) for name, spec in trigger_specs(policy).items())
    is_blind = now - state.fresh_at > policy.stale_ttl_s
    return TriggerVerdict(
        is_fired=state.fired is not None,
        reason_code=state.fired or ("blind" if is_blind else "quiet"),
        is_blind=is_blind,
        rows=rows,
        fired_at=state.fired_at,
    )


def _row(policy: TriggerPolicy, state: TriggerState, name: str, spec: ECusumSpec) -> TriggerRow:
    n, x = state.counts[name]
    rate = x / n if n > 0 else None
    value = bounded_exp(float(evidence(state.detectors[name])))
    is_fired = state.fired == name
    shown = "no data" if rate is None else f"{rate * 100:.1f} %"
    words = {
        "error": f"error {shown} (limit {policy.error_max * 100:g} %)",
        "p95": f"slower than {policy.p95_ms:g} ms {shown} (limit {SLOW_SHARE * 100:g} %)",
        "toxicity": f"toxicity {shown} (limit {policy.toxicity_max * 100:g} %)",
    }[name]
    sign = ">=" if is_fired else "<"
    line = f"active {words} since the watch began, recent evidence {value:.3g} {sign} {spec.alarm:g}, n={n:g}"
    return TriggerRow(name, spec.limit, n, rate, value, spec.alarm, is_fired, line)


def burn_limits(error_budget: float) -> tuple[tuple[float, float, float], ...]:
    """(long window s, short window s, burn rate) for pages, capped so that they can fire.

    The SRE workbook's 14.4 and 6 assume a tiny budget; with a budget of 10 % even a full outage burns at 10,
    so each limit is at most 90 % of 1 / budget. Raises ValueError for a budget outside (0, 1).
    """
    if not 0.0 < error_budget < 1.0:
        raise ValueError(f"error budget {error_budget} must lie between 0 and 1")
    cap = 0.9 / error_budget
    return ((3600.0, 300.0, min(14.4, cap)), (21_600.0, 1800.0, min(6.0, cap)))
