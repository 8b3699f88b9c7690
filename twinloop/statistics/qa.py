"""The QA dry run: a fixed exam, one decision, exact counts.

No sequential correction is needed because the exam is read once. Missing answers count against the candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from fractions import Fraction
from math import ceil, floor, isfinite
from typing import Any

from twinloop.errors import ConfigError

from .proportions import clopper_pearson, mcnemar


@dataclass(frozen=True)
class QaPolicy:
    """Limits of the exam; rates are shares of all probes."""

    pass_rate_min: float = 0.66
    """Least share of probes answered, as expected, and validly cited where a citation is needed."""
    toxicity_max: float = 0.05
    """Highest share of probes whose answer is flagged."""
    p95_ms: float = 500.0
    """Highest p95 of the probes' latencies."""
    error_max: float = 0.10
    """Highest share of probes without an answer or with an error."""
    min_probes: int = 200
    """Fewer probes cannot pass: at 200, a true pass rate of .70 passes nine times in ten, .60 once in twenty.
    """

    def __post_init__(self) -> None:
        for name in ("pass_rate_min", "toxicity_max", "error_max"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"QA policy: {name} must lie between 0 and 1; correct the gatekeeper's configuration"
                )
        for name in ("min_probes", "p95_ms"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"QA policy: {name} must be positive; correct the gatekeeper's configuration"
                )


@dataclass(frozen=True)
class ProbeResult:
    """One probe of the exam. None means that the measurement is missing, which never helps the candidate."""

    probe_id: str
    ok: bool
    """An answer came, in time and without an error."""
    correct: bool | None = None
    """The grader's word on the answer."""
    toxic: bool | None = None
    latency_ms: float | None = None
    citation_required: bool = False
    citation_valid: bool | None = None
    active_correct: bool | None = None
    """The active twin's grade on the same probe, for the paired report."""

    @property
    def is_passed(self) -> bool:
        """Answered, correct, and validly cited where a citation is required."""
        cited = not self.citation_required or self.citation_valid is True
        return self.ok and self.correct is True and cited


class QaKind(str, Enum):
    """Outcome of the exam."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """Too few probes were set: nothing is shown, so the candidate does not go on."""


@dataclass(frozen=True)
class QaRow:
    """One limit of the exam with its exact count."""

    name: str
    count: int
    n: int
    limit: int
    """Largest count allowed (smallest required for pass_rate)."""
    rate: float
    ci_low: float
    ci_high: float
    is_passed: bool
    line: str


@dataclass(frozen=True)
class QaVerdict:
    """The exam's verdict; `reason_code` names the first gate that failed."""

    kind: QaKind
    reason_code: str
    rows: tuple[QaRow, ...]
    missing: int
    pairs: int
    only_candidate_passed: int
    only_active_passed: int
    mcnemar_p: float | None
    """Exact paired test, reported only; None without pairs."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "kind": self.kind.value, "rows": [asdict(row) for row in self.rows]}


def _exact(rate: float) -> Fraction:
    return Fraction(repr(rate))


def judge_exam(policy: QaPolicy, expected: Sequence[str], results: Iterable[ProbeResult]) -> QaVerdict:
    """Judge one finished exam. `expected` lists every probe that was sent; one without a result failed
    everything.

    An answer with a missing latency is slow, one with a missing flag is toxic, one without a grade is not
    passed. p95 <= limit is the exact count of slow answers <= 5 % of probes. Raises ValueError on a result
    that is unknown or given twice.
    """
    by_id: dict[str, ProbeResult] = {}
    known = set(expected)
    for result in results:
        if result.probe_id in by_id or result.probe_id not in known:
            raise ValueError(
                f"probe {result.probe_id} is unknown or was answered twice; keep the first result"
            )
        by_id[result.probe_id] = result
    n, missing = len(known), len(known) - len(by_id)
    given = [by_id[probe] for probe in sorted(by_id)]
    answered = [result for result in given if result.ok]
    rows = (
        _at_least("pass_rate", sum(r.is_passed for r in given), n, policy.pass_rate_min),
        _at_most("toxicity", sum(r.toxic is not False for r in answered), n, policy.toxicity_max),
        _at_most("p95", sum(_is_slow(r, policy.p95_ms) for r in answered) + missing, n, 0.05),
        _at_most("error", n - len(answered), n, policy.error_max),
    )
    pairs = [r for r in given if r.active_correct is not None]
    gained = sum(r.is_passed and not r.active_correct for r in pairs)
    lost = sum(not r.is_passed and bool(r.active_correct) for r in pairs)
    failed = next((row.name for row in rows if not row.is_passed), None)
    kind = QaKind.PASS
    if n < policy.min_probes:
        kind, failed = QaKind.INCONCLUSIVE, "min_probes"
    elif failed is not None:
        kind = QaKind.FAIL
    return QaVerdict(
        kind=kind,
        reason_code=failed or "all_gates_passed",
        rows=rows,
        missing=missing,
        pairs=len(pairs),
        only_candidate_passed=gained,
        only_active_passed=lost,
        mcnemar_p=mcnemar(gained, lost) if pairs else None,
    )


def can_still_pass(policy: QaPolicy, expected: int, results: Iterable[ProbeResult]) -> bool:
    """Whether the remaining probes could still rescue the exam; stopping where they cannot costs no
    guarantee.
    """
    given = list(results)
    left = expected - len(given)
    passed = sum(r.is_passed for r in given)
    answered = [r for r in given if r.ok]
    return (
        passed + left >= ceil(_exact(policy.pass_rate_min) * expected)
        and sum(r.toxic is not False for r in answered) <= floor(_exact(policy.toxicity_max) * expected)
        and sum(_is_slow(r, policy.p95_ms) for r in answered) <= floor(Fraction(expected, 20))
        and len(given) - len(answered) <= floor(_exact(policy.error_max) * expected)
    )


def _is_slow(result: ProbeResult, limit_ms: float) -> bool:
    latency = result.latency_ms
    return latency is None or not isfinite(latency) or latency > limit_ms


def _at_least(name: str, count: int, n: int, rate_min: float) -> QaRow:
    limit = ceil(_exact(rate_min) * n)
    return _row(name, count, n, limit, n > 0 and count >= limit, ">=")


def _at_most(name: str, count: int, n: int, rate_max: float) -> QaRow:
    limit = floor(_exact(rate_max) * n)
    return _row(name, count, n, limit, n > 0 and count <= limit, "<=")


def _row(name: str, count: int, n: int, limit: int, is_passed: bool, sign: str) -> QaRow:
    low, high = clopper_pearson(count, n)
    shown = sign if is_passed else {">=": "<", "<=": ">"}[sign]
    return QaRow(
        name=name,
        count=count,
        n=n,
        limit=limit,
        rate=count / n if n else 0.0,
        ci_low=float(low),
        ci_high=float(high),
        is_passed=is_passed,
        line=(
            f"QA {name}: {count} of {n} {shown} {limit}, 95 % interval {float(low):.3f} to {float(high):.3f}"
        ),
    )
