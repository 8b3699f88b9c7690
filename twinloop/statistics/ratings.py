"""Dissatisfaction as a guardrail: is the share of keys that rate the shadow down beyond the active one's by a margin?

The e-process is the canary's (`eprocess`), over windows of its own: ratings come minutes after the answer, and few
come. It can stop or hold a canary and proves nothing for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .eprocess import EProcessSpec, EProcessState, log_e, step
from .evidence import ERROR_UP
from .gate_rows import bounded_exp
from .verdict import GateRow, Verdict, VerdictKind

NAME = "ratings"
POOL_KEYS = 20
"""Windows are pooled until they hold so many rated keys of both arms together and at least one of each."""


@dataclass(frozen=True)
class RatingRule:
    """Limits of the guardrail, as shares of 1."""

    margin: float
    """How much higher the share of keys that rate the shadow down may be."""
    alpha: float
    """Bound on ever stopping a canary whose users are no less content."""
    suspicion: float
    """Evidence at 1 / this holds the canary."""
    min_rated: int
    """Rated keys of the shadow that a promotion needs; 0 asks for none."""


@dataclass(frozen=True)
class RatedArms:
    """Rated keys of both arms in one window, and the sum of each key's share of thumbs down."""

    rated_s: float = 0.0
    down_s: float = 0.0
    rated_a: float = 0.0
    down_a: float = 0.0

    def plus(self, other: RatedArms) -> RatedArms:
        """Both windows as one."""
        return RatedArms(
            self.rated_s + other.rated_s,
            self.down_s + other.down_s,
            self.rated_a + other.rated_a,
            self.down_a + other.down_a,
        )

    @property
    def is_full(self) -> bool:
        return min(self.rated_s, self.rated_a) > 0 and self.rated_s + self.rated_a >= POOL_KEYS


@dataclass(frozen=True, eq=False)
class RatingState:
    """The guardrail's memory; plain JSON by `to_json`."""

    process: EProcessState
    pending: RatedArms = RatedArms()
    passed: Mapping[int, tuple[float, int]] | None = None
    """By partition of `feedback`: (start, epoch) of the last window taken."""

    @classmethod
    def begin(cls, rule: RatingRule) -> RatingState:
        """A canary nobody has rated."""
        return cls(EProcessState.start(_spec(rule), (1,)), passed={})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "process": self.process.to_json(),
            "pending": dict(self.pending.__dict__),
            "passed": [[partition, *reached] for partition, reached in sorted((self.passed or {}).items())],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RatingState:
        """The state that `to_json` described."""
        return cls(
            process=EProcessState.from_json(data["process"]),
            pending=RatedArms(**data["pending"]),
            passed={partition: (start, epoch) for partition, start, epoch in data["passed"]},
        )


def rate(
    rule: RatingRule, state: RatingState, *, partition: int, start: float, epoch: int, counts: RatedArms
) -> RatingState:
    """The state after one partition's window of matured ratings; one that was taken before changes nothing. Pure."""
    passed = dict(state.passed or {})
    if (start, epoch) <= passed.get(partition, (-math.inf, -1)):
        return state
    passed[partition] = (start, epoch)
    pooled = state.pending.plus(counts)
    if not pooled.is_full:
        return replace(state, pending=pooled, passed=passed)
    counted = ([each] for each in (pooled.rated_s, pooled.down_s, pooled.rated_a, pooled.down_a))
    stepped = step(_spec(rule), state.process, *counted)
    return RatingState(stepped, passed=passed)


def rating_row(rule: RatingRule, state: RatingState) -> GateRow:
    """The guardrail in numbers and words: `breached` stops, `invalid` holds; what nobody rated is said, not held."""
    process, spec = state.process, _spec(rule)
    n_s, x_s, n_a, x_a = (float(v[0]) for v in (process.n_s, process.x_s, process.n_a, process.x_a))
    s, a = _share(x_s, n_s), _share(x_a, n_a)
    log_now, largest = float(log_e(process)[0]), float(process.max_log_e[0])
    threshold = 1.0 / rule.alpha
    is_breached = largest >= math.log(threshold)
    is_suspect = log_now >= -math.log(rule.suspicion)
    missing = rule.min_rated - n_s
    compared = (
        f"{_percent(s)} against {_percent(a)} + {rule.margin * 100:g} pts"
        if n_s and n_a
        else "not enough ratings"
    )
    sign = ">=" if is_breached else "<"
    return GateRow(
        name=NAME,
        kind="guardrail",
        null=spec.null_text("rated down"),
        r=1.0,
        c=rule.margin,
        alpha=rule.alpha,
        n_s=n_s,
        x_s=x_s,
        n_a=n_a,
        x_a=x_a,
        est_s=s,
        est_a=a,
        diff=None if s is None or a is None else s - a,
        e=bounded_exp(log_now),
        log_e=log_now,
        max_e=bounded_exp(largest),
        p_anytime=math.exp(-max(largest, 0.0)),
        threshold=threshold,
        literal_pass=None if s is None or a is None else s <= a + rule.margin,
        status="breached" if is_breached else "invalid" if is_suspect else "open",
        needed=f"still needed: ratings of {missing:g} more shadow keys" if missing > 0 else "",
        line=(
            f"canary dissatisfaction {compared}, harm e={bounded_exp(log_now):.3g} {sign} {threshold:g}, "
            f"n={n_s:g} rated keys (active {n_a:g})"
        ),
    )


def with_ratings(verdict: Verdict, row: GateRow, *, is_over: bool) -> Verdict:
    """The canary's verdict with the guardrail in it; `is_over`: the canary's longest time is used up."""
    seen = replace(verdict, gates=(*verdict.gates, row))
    if verdict.kind is VerdictKind.ABORT:
        return seen
    if row.status == "breached":
        return replace(seen, kind=VerdictKind.ABORT, reason_code=NAME, summary=row.line, may_ramp=False)
    is_suspect = row.status == "invalid"
    is_held = is_suspect or (verdict.kind is VerdictKind.PROMOTE and row.needed != "")
    if not is_held:
        return seen
    why = f"{row.line}; {row.needed}" if row.needed else row.line
    if verdict.kind is VerdictKind.PROMOTE and is_over:
        return replace(
            seen,
            kind=VerdictKind.ABORT,
            reason_code="inconclusive",
            summary=f"undecided: {why}",
            may_ramp=False,
        )
    return replace(seen, kind=VerdictKind.HOLD, reason_code=NAME, summary=why, may_ramp=False)


def _spec(rule: RatingRule) -> EProcessSpec:
    return EProcessSpec(1.0, rule.margin, ERROR_UP, "up")


def _share(x: float, n: float) -> float | None:
    return x / n if n > 0 else None


def _percent(share: float | None) -> str:
    return "no data" if share is None else f"{share * 100:.1f} %"
