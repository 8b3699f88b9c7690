"""The canary rule: PROMOTE, ABORT or HOLD from what `advance` has kept.

Order of decision, after each window and each clock tick:

0. With `silent_shadow: hold`, a shadow that answers nothing: HOLD, then ABORT after `stale_ttl_s`.
1. ABORT when the mean of the abort gates' e-values reached 1 / alpha_abort, or one domain's reached its
   share.
2. Invalid data (wrong split of keys, no fresh window, missing labels): HOLD, then ABORT after
   `invalid_ttl_s`.
3. PROMOTE when every promote gate has 1 / alpha_promote now, traffic is enough and the literal limits hold.
4. ABORT as inconclusive at `max_shadow` or `max_duration_s`; else HOLD.

Evidence of harm goes before invalid data: a wrong split ends in an abort anyway, missing labels never add to
harm, so waiting could only expose more users. P(ever abort | all gates fine) <= alpha_abort + alpha_domain
and P(ever promote | some gate breached) <= alpha_promote at any number of looks (Ville; Berger 1982; Vovk,
Wang).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from .canary_state import CanaryState, advance, coverage, observe_baseline
from .eprocess import log_e, mixture_log_e
from .evidence import WATCH, abort_log_e, is_proven_safe, promote_log_e
from .gate_rows import bounded_exp, gate_rows, quality_row, scope_processes, traffic_row
from .policy import CanaryPolicy
from .verdict import GateRow, QualityRow, TrafficRow, Verdict, VerdictKind

__all__ = [
    "CanaryPolicy",
    "CanaryState",
    "GateRow",
    "QualityRow",
    "TrafficRow",
    "Verdict",
    "VerdictKind",
    "advance",
    "judge",
    "judge_harm",
    "observe_baseline",
]


def judge(policy: CanaryPolicy, state: CanaryState, now: float) -> Verdict:
    """The verdict at `now`: pure, so the same state and time give the same words and numbers."""
    found = _findings(policy, state)
    ruling = _rule(policy, state, now=now, found=found)
    return Verdict(
        kind=ruling.kind,
        reason_code=ruling.reason_code,
        summary=ruling.summary,
        gates=found.gates,
        traffic=found.traffic,
        quality=quality_row(policy, state, now),
        mean_e_abort=bounded_exp(found.harm),
        min_e_promote=bounded_exp(found.safe),
        may_ramp=ruling.kind is VerdictKind.HOLD
        and _silence(policy, state, now) is None
        and _invalid(policy, state, now) is None
        and not _is_trend_bad(policy, state),
        decided_at=now,
        windows=state.totals.windows,
        windows_digest=state.windows_digest,
        x_w_ms=state.x_w_ms,
    )


@dataclass(frozen=True)
class _Findings:
    """What a state says whatever the time."""

    gates: tuple[GateRow, ...]
    traffic: TrafficRow
    harm: float
    """Log of the mean of the abort gates' e-values."""
    safe: float
    """Log of the smallest promote gate's e-value."""
    is_proven: bool
    """Whether every promote gate has 1 / alpha_promote now."""


@lru_cache(maxsize=4)
def _findings(policy: CanaryPolicy, state: CanaryState) -> _Findings:
    """Kept for the next clock tick, which judges the same state again; states never change and hash by identity."""
    processes = scope_processes(state, 0)
    promote = promote_log_e(processes)
    return _Findings(
        gates=gate_rows(policy, state),
        traffic=traffic_row(policy, state),
        harm=float(mixture_log_e(abort_log_e(processes))),
        safe=float(promote.min()),
        is_proven=bool(is_proven_safe(promote, policy.alpha_promote)),
    )


def judge_harm(
    policy: CanaryPolicy, state: CanaryState, *, subject: str
) -> tuple[tuple[GateRow, ...], GateRow | None]:
    """Abort gates and domains, for a stage that can stop a release and never promote one; the gate that stopped it.

    Domains say where the harm is, and stop nothing by themselves.
    `subject` says in the gates' lines whose answers the first arm holds.
    """
    rows = tuple(
        replace(row, line=row.line.replace("canary", subject, 1))
        for row in gate_rows(policy, state)
        if row.kind in ("abort", "domain")
    )
    return rows, next((row for row in rows if row.kind == "abort" and row.name == state.abort_gate), None)


@dataclass(frozen=True)
class _Ruling:
    kind: VerdictKind
    reason_code: str
    summary: str


def _rule(
    policy: CanaryPolicy,
    state: CanaryState,
    *,
    now: float,
    found: _Findings,
) -> _Ruling:
    silence = _silence(policy, state, now)
    if silence is not None:
        return silence
    harm = _harm(state, found.gates)
    if harm is not None:
        return harm
    invalid = _invalid(policy, state, now)
    if invalid is not None:
        code, since, why = invalid
        if now - since > policy.invalid_ttl_s:
            return _Ruling(VerdictKind.ABORT, code, f"{why} for more than {policy.invalid_ttl_s:g} s")
        return _Ruling(VerdictKind.HOLD, code, why)
    blocker = _blocker(found)
    if blocker is None:
        lines = "; ".join(gate.line for gate in found.gates if gate.kind == "promote")
        return _Ruling(VerdictKind.PROMOTE, "all_gates_cleared", lines)
    units = float(state.processes["error_promote"].n_s[0]) + state.totals.warmup_units
    if units >= policy.max_shadow:
        seen = f"{units:g} shadow units (limit {policy.max_shadow})"
        why = f"undecided after {seen}: {blocker.summary}"
        return _Ruling(VerdictKind.ABORT, "inconclusive", why)
    if now - state.started_at >= policy.max_duration_s:
        why = f"undecided after {policy.max_duration_s:g} s: {blocker.summary}"
        return _Ruling(VerdictKind.ABORT, "inconclusive", why)
    return blocker


def _silence(policy: CanaryPolicy, state: CanaryState, now: float) -> _Ruling | None:
    """A shadow that answers nothing is down, not wrong; harm that was found before still counts after it."""
    if policy.silent_shadow != "hold" or state.silent_at is None:
        return None
    why = "the shadow answered none of its queries"
    if now - state.silent_at > policy.stale_ttl_s:
        return _Ruling(VerdictKind.ABORT, "silent_shadow", f"{why} for more than {policy.stale_ttl_s:g} s")
    return _Ruling(VerdictKind.HOLD, "silent_shadow", f"{why} for {now - state.silent_at:.0f} s")


def _harm(state: CanaryState, gates: tuple[GateRow, ...]) -> _Ruling | None:
    if state.abort_gate is not None:
        line = next(g.line for g in gates if g.kind == "abort" and g.name == state.abort_gate)
        return _Ruling(VerdictKind.ABORT, state.abort_gate, line)
    for gate in gates:
        if gate.kind == "domain" and gate.status == "breached":
            return _Ruling(VerdictKind.ABORT, f"domain:{gate.name}", gate.line)
    return None


def _invalid(policy: CanaryPolicy, state: CanaryState, now: float) -> tuple[str, float, str] | None:
    """(reason code, since when, words) of the first reason not to believe the data."""
    if state.srm_at is not None:
        keys = f"{state.srm.keys_shadow} shadow and {state.srm.keys_active} active keys"
        evidence = f"e={bounded_exp(state.srm.max_log_e):.3g} >= {policy.srm_threshold:g}"
        why = f"split of keys is wrong: {keys} at {state.srm.canary_bp / 100:g} %, {evidence}"
        return "srm", state.srm_at, why
    age = now - state.fresh_at
    if age > policy.stale_ttl_s:
        why = f"no window with traffic in both arms for {age:.0f} s"
        return "stale", state.fresh_at + policy.stale_ttl_s, why
    if state.coverage_bad_at is not None:
        share = coverage(policy, state.totals)
        return (
            "coverage",
            state.coverage_bad_at,
            (f"only {share:.2%} of data carry outcome, latency and label (need {policy.label_coverage:.0%})"),
        )
    return None


def _blocker(found: _Findings) -> _Ruling | None:
    """Why the canary may not be promoted yet; None when it may."""
    gates, traffic = found.gates, found.traffic
    suspect = next((g for g in gates if g.kind == "domain" and g.status == "invalid"), None)
    if suspect is not None:
        return _Ruling(VerdictKind.HOLD, f"domain:{suspect.name}", suspect.line)
    promote = [gate for gate in gates if gate.kind == "promote"]
    limits = [*promote, *(gate for gate in gates if gate.name == "early_stop")]
    literal = next((gate for gate in limits if gate.literal_pass is False), None)
    if found.is_proven and traffic.is_met and literal is None:
        return None
    if not found.is_proven:
        weakest = min(promote, key=lambda gate: gate.log_e)
        return _Ruling(VerdictKind.HOLD, f"evidence:{weakest.name}", f"{weakest.line}; {weakest.needed}")
    if not traffic.is_met:
        width = traffic.ci_high - traffic.ci_low
        why = f"{traffic.n_s:g} of {traffic.min_shadow} shadow units, error interval {width:.3f} wide"
        return _Ruling(VerdictKind.HOLD, "traffic", why)
    assert literal is not None
    return _Ruling(VerdictKind.HOLD, f"literal:{literal.name}", literal.line)


def _is_trend_bad(policy: CanaryPolicy, state: CanaryState) -> bool:
    return float(log_e(state.processes[WATCH])[0]) >= -math.log(policy.alpha_abort)
