"""The rows of a verdict: every gate, the traffic rule and the data quality, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np

from . import latency
from .canary_state import P95, CanaryState, coverage
from .eprocess import AnySpec, EProcessState, Floats, anytime_p, log_e, mixture_log_e
from .evidence import (
    ABORT_GATES,
    HARM,
    PROMOTE_GATES,
    WATCH,
    abort_log_e,
    is_error_literally_fine,
    is_traffic_enough,
    promote_log_e,
    specs,
)
from .policy import CanaryPolicy
from .proportions import confidence_sequence
from .verdict import GateRow, QualityRow, TrafficRow

_LARGEST_LOG = 700.0
_PROCESS = {
    ("error_margin", "abort"): "error_abort",
    ("early_stop", "abort"): "ratio_abort",
    ("p95", "abort"): "p95_abort",
    ("toxicity", "abort"): "toxicity_abort",
    ("error_margin", "promote"): "error_promote",
    ("p95", "promote"): "p95_promote",
    ("toxicity", "promote"): "toxicity_promote",
}


def bounded_exp(value: float) -> float:
    """exp without overflow, so that records stay finite."""
    return math.exp(min(value, _LARGEST_LOG))


def scope_processes(state: CanaryState, row: int) -> dict[str, EProcessState]:
    """The processes of all traffic (row 0) or the harm processes of one domain (row 1, 2, ...)."""
    names = state.processes if row == 0 else HARM
    return {name: state.processes[name].take(np.array(row)) for name in names}


def gate_rows(policy: CanaryPolicy, state: CanaryState) -> tuple[GateRow, ...]:
    """Abort gates, promote gates, the trend watch and one row per domain, in that order."""
    processes = scope_processes(state, 0)
    harm, safety = _estimates(policy, state, "abort"), _estimates(policy, state, "promote")
    abort, promote = abort_log_e(processes), promote_log_e(processes)
    mean_harm = bounded_exp(float(mixture_log_e(abort)))
    rows = [
        _abort_row(policy, state, name, float(abort[i]), harm[name], mean_harm)
        for i, name in enumerate(ABORT_GATES)
    ]
    rows += [
        _promote_row(policy, state, name, float(promote[i]), safety[name])
        for i, name in enumerate(PROMOTE_GATES)
    ]
    rows.append(_trend_row(policy, state))
    return (*rows, *_domain_rows(policy, state))


def _abort_row(
    policy: CanaryPolicy, state: CanaryState, name: str, log_now: float, estimate: _Estimate, mean_harm: float
) -> GateRow:
    threshold = 1.0 / policy.alpha_abort
    breached = state.abort_gate == name
    n = float(state.processes[_PROCESS[name, "abort"]].n_s[0])
    sign = ">=" if breached else "<" if mean_harm < threshold else ">="
    line = (
        f"canary {estimate.text}, harm e={bounded_exp(log_now):.3g} "
        f"(mean of gates {mean_harm:.3g} {sign} {threshold:g}), n={n:g}"
    )
    return _row(
        policy,
        state,
        name=name,
        kind="abort",
        log_now=log_now,
        estimate=estimate,
        alpha=policy.alpha_abort,
        status="breached" if breached else "open",
        needed="",
        line=line,
    )


def _promote_row(
    policy: CanaryPolicy, state: CanaryState, name: str, log_now: float, estimate: _Estimate
) -> GateRow:
    threshold = 1.0 / policy.alpha_promote
    n = float(state.processes[_PROCESS[name, "promote"]].n_s[0])
    proven = log_now >= math.log(threshold)
    fine = proven and bool(estimate.literal)
    sign = ">=" if proven else "<"
    return _row(
        policy,
        state,
        name=name,
        kind="promote",
        log_now=log_now,
        estimate=estimate,
        alpha=policy.alpha_promote,
        status="cleared" if fine else "open",
        needed="" if fine else _needed(log_now, n, math.log(threshold), estimate),
        line=f"canary {estimate.text}, e={bounded_exp(log_now):.3g} {sign} {threshold:g}, n={n:g}",
    )


def _needed(log_now: float, n: float, goal: float, estimate: _Estimate) -> str:
    if log_now >= goal:
        return "still needed: the measured value itself within its limit"
    if n > 0 and log_now > 0.1:
        more = math.ceil((goal - log_now) * n / log_now)
        return f"still needed: about {more} more shadow units at the present rate"
    if estimate.literal is False and n > 0:
        return "still needed: a measured value within its limit, then evidence for it"
    return "still needed: more shadow units before a forecast is possible"


def _row(
    policy: CanaryPolicy,
    state: CanaryState,
    *,
    name: str,
    kind: str,
    log_now: float,
    estimate: _Estimate,
    alpha: float,
    status: str,
    needed: str,
    line: str,
) -> GateRow:
    key = _PROCESS[name, kind]
    process, spec = state.processes[key], specs(policy)[key]
    largest = float(process.max_log_e[0])
    if name == "early_stop":
        # No larger than the smaller of the two maxima: a safe bound on the maximum of the minimum.
        largest = min(largest, float(state.processes["floor_abort"].max_log_e[0]))
    diff = None if estimate.s is None or estimate.a is None else estimate.s - estimate.a
    return GateRow(
        name=name,
        kind=kind,
        null=_null_text(policy, spec, name),
        r=getattr(spec, "r", 0.0),
        c=spec.c if hasattr(spec, "c") else spec.limit,
        alpha=alpha,
        n_s=float(process.n_s[0]),
        x_s=float(process.x_s[0]),
        n_a=float(process.n_a[0]),
        x_a=float(process.x_a[0]),
        est_s=estimate.s,
        est_a=estimate.a,
        diff=diff,
        e=bounded_exp(log_now),
        log_e=log_now,
        max_e=bounded_exp(largest),
        p_anytime=math.exp(-max(largest, 0.0)),
        threshold=1.0 / alpha,
        literal_pass=estimate.literal,
        status=status,
        needed=needed,
        line=line,
    )


def _trend_row(policy: CanaryPolicy, state: CanaryState) -> GateRow:
    process, spec = state.processes[WATCH], specs(policy)[WATCH]
    s, a = _rate(process.x_s[0], process.n_s[0]), _rate(process.x_a[0], process.n_a[0])
    log_now, threshold = float(log_e(process)[0]), 1.0 / policy.alpha_abort
    worse = log_now >= math.log(threshold)
    words = "worse than active, no further ramp" if worse else "not proven worse than active"
    return GateRow(
        name=WATCH,
        kind="watch",
        null=spec.null_text("error"),
        r=1.0,
        c=0.0,
        alpha=policy.alpha_abort,
        n_s=float(process.n_s[0]),
        x_s=float(process.x_s[0]),
        n_a=float(process.n_a[0]),
        x_a=float(process.x_a[0]),
        est_s=s,
        est_a=a,
        diff=None if s is None or a is None else s - a,
        e=bounded_exp(log_now),
        log_e=log_now,
        max_e=bounded_exp(float(process.max_log_e[0])),
        p_anytime=float(anytime_p(process)[0]),
        threshold=threshold,
        literal_pass=None,
        status="breached" if worse else "open",
        needed="",
        line=f"canary error {_percent(s)}, active {_percent(a)}: {words}, e={bounded_exp(log_now):.3g}",
    )


def _domain_rows(policy: CanaryPolicy, state: CanaryState) -> list[GateRow]:
    """All domains, whose evidence is worked out together."""
    processes = {name: state.processes[name] for name in HARM}
    gates, maxima = abort_log_e(processes), mixture_log_e(_gate_maxima(processes))
    means = mixture_log_e(gates)
    return [
        _domain_row(policy, state, row, name, gates[row], float(means[row]), float(maxima[row]))
        for row, name in enumerate(policy.domains, start=1)
    ]


def _domain_row(
    policy: CanaryPolicy,
    state: CanaryState,
    row: int,
    name: str,
    gates: Floats,
    log_now: float,
    largest: float,
) -> GateRow:
    """One domain: breached at its Bonferroni share of alpha_domain, `invalid` (holds) already at 1 /
    alpha_abort.
    """
    worst = ABORT_GATES[int(gates.argmax())]
    process, error = state.processes[_PROCESS[worst, "abort"]], state.processes["error_abort"]
    alpha = policy.alpha_domain / len(policy.domains)
    breached, suspect = log_now >= -math.log(alpha), log_now >= -math.log(policy.alpha_abort)
    s, a = _rate(error.x_s[row], error.n_s[row]), _rate(error.x_a[row], error.n_a[row])
    sign = ">=" if breached else "<"
    return GateRow(
        name=name,
        kind="domain",
        null=f"no harm in {name} by any abort gate",
        r=1.0,
        c=policy.error_margin,
        alpha=alpha,
        n_s=float(process.n_s[row]),
        x_s=float(process.x_s[row]),
        n_a=float(process.n_a[row]),
        x_a=float(process.x_a[row]),
        est_s=s,
        est_a=a,
        diff=None if s is None or a is None else s - a,
        e=bounded_exp(log_now),
        log_e=log_now,
        # Each gate's own maximum, averaged: an upper bound on the maximum of the mean.
        max_e=bounded_exp(largest),
        p_anytime=min(1.0, math.exp(-max(log_now, 0.0))),
        threshold=1.0 / alpha,
        literal_pass=None,
        status="breached" if breached else "invalid" if suspect else "open",
        needed="",
        line=(
            f"canary in {name}: worst gate {worst}, error {_percent(s)} against {_percent(a)}, "
            f"harm e={bounded_exp(log_now):.3g} {sign} {1.0 / alpha:g}, n={float(error.n_s[row]):g}"
        ),
    )


def _gate_maxima(processes: dict[str, EProcessState]) -> Floats:
    early = np.minimum(processes["ratio_abort"].max_log_e, processes["floor_abort"].max_log_e)
    rest = (processes[name].max_log_e for name in ("error_abort", "p95_abort", "toxicity_abort"))
    return np.stack([early, *rest], axis=-1)


def _null_text(policy: CanaryPolicy, spec: AnySpec, name: str) -> str:
    if name == "p95":
        sign = "<=" if spec.direction == "up" else ">="
        return f"share(shadow > x_w + {policy.p95_margin_ms:g} ms) {sign} share(active > x_w), x_w = active p95 before"
    text = spec.null_text("toxic" if name == "toxicity" else "error")
    return f"{text} or <= error(active) + {policy.early_stop_floor:g}" if name == "early_stop" else text


def traffic_row(policy: CanaryPolicy, state: CanaryState) -> TrafficRow:
    """The traffic rule on the shadow units that count for a promotion."""
    process = state.processes["error_promote"]
    n_s, x_s = process.n_s[:1], process.x_s[:1]
    low, high = (float(v[0]) for v in confidence_sequence(np.minimum(x_s, n_s), n_s))
    is_met = bool(is_traffic_enough(policy, n_s, x_s)[0])
    path = "count" if float(n_s[0]) >= policy.min_shadow else "interval" if is_met else "closed"
    return TrafficRow(
        n_s=float(n_s[0]),
        min_shadow=policy.min_shadow,
        ci_low=low,
        ci_high=high,
        ci_max_width=policy.ci_width,
        ci_floor=policy.ci_floor,
        is_met=is_met,
        path=path,
    )


def quality_row(policy: CanaryPolicy, state: CanaryState, now: float) -> QualityRow:
    """Data quality of the whole canary so far."""
    totals = state.totals
    return QualityRow(
        srm_e=bounded_exp(state.srm.max_log_e),
        keys_s=state.srm.keys_shadow,
        keys_a=state.srm.keys_active,
        coverage=coverage(policy, totals),
        missing_s=totals.missing_s,
        missing_a=totals.missing_a,
        unlabelled_s=totals.unlabelled_s,
        late=totals.late,
        duplicates=totals.duplicates,
        warmup_units=totals.warmup_units,
        age_s=now - state.fresh_at,
    )


@dataclass(frozen=True)
class _Estimate:
    """One outcome in numbers and in words."""

    s: float | None
    a: float | None
    text: str
    literal: bool | None


def _estimates(policy: CanaryPolicy, state: CanaryState, kind: str) -> dict[str, _Estimate]:
    """Point estimates; those of kind `abort` count the warm-up, those of kind `promote` do not."""
    error, toxic = state.processes[f"error_{kind}"], state.processes[f"toxicity_{kind}"]
    within, not_doubled = (
        bool(fine[0])
        for fine in is_error_literally_fine(
            policy, error.n_s[:1], error.x_s[:1], error.n_a[:1], error.x_a[:1]
        )
    )
    absolute = policy.error_mode == "absolute"
    margin = f"+ {policy.error_margin * 100:g} pts" if absolute else f"x {1 + policy.error_margin:g}"
    s, a = _rate(error.x_s[0], error.n_s[0]), _rate(error.x_a[0], error.n_a[0])
    toxic_s = _rate(toxic.x_s[0], toxic.n_s[0])
    toxic_fine = toxic_s is not None and toxic_s <= policy.toxicity_max
    p95_s, p95_a = _p95(state.latency_s), _p95(state.latency_a)
    p95_fine = p95_s is not None and p95_a is not None and p95_s <= p95_a + policy.p95_margin_ms
    ratio = f"{policy.early_stop_ratio:g} x {_percent(a)}"
    return {
        "error_margin": _Estimate(
            s, a, _compare(f"error {_percent(s)}", within, f"{_percent(a)} {margin}"), within
        ),
        "early_stop": _Estimate(s, a, f"error {_percent(s)} against {ratio}", not_doubled),
        "p95": _Estimate(
            p95_s,
            p95_a,
            _compare(f"p95 {_ms(p95_s)}", p95_fine, f"{_ms(p95_a)} + {policy.p95_margin_ms:g} ms"),
            p95_fine,
        ),
        "toxicity": _Estimate(
            toxic_s,
            None,
            _compare(f"toxicity {_percent(toxic_s)}", toxic_fine, _percent(policy.toxicity_max)),
            toxic_fine,
        ),
    }


def _compare(left: str, holds: bool, right: str) -> str:
    return f"{left} {'<=' if holds else '>'} {right}"


def _rate(x: SupportsFloat, n: SupportsFloat) -> float | None:
    return float(x) / float(n) if float(n) > 0 else None


def _p95(weights: Floats) -> float | None:
    if float(weights.sum()) <= 0.0:
        return None
    edge = float(latency.edge_ms(latency.quantile_bin(weights, P95)))
    return edge if math.isfinite(edge) else float(latency.EDGES_MS[-1])


def _percent(rate: float | None) -> str:
    return "no data" if rate is None else f"{rate * 100:.1f} %"


def _ms(value: float | None) -> str:
    return "no data" if value is None else f"{value:.0f} ms"
