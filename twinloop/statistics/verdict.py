"""What a judge says: a kind, a reason, and every gate with its numbers, so that nobody asks "why" twice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class VerdictKind(str, Enum):
    """What to do with a canary now."""

    PROMOTE = "promote"
    ABORT = "abort"
    HOLD = "hold"


@dataclass(frozen=True)
class GateRow:
    """One gate of one verdict."""

    name: str
    kind: str
    """abort, promote, watch or domain."""
    null: str
    """The hypothesis that the evidence speaks against."""
    r: float
    c: float
    alpha: float
    n_s: float
    x_s: float
    n_a: float
    x_a: float
    est_s: float | None
    est_a: float | None
    diff: float | None
    e: float
    log_e: float
    max_e: float
    p_anytime: float
    threshold: float
    literal_pass: bool | None
    """Whether the limit of the specification holds for the point estimates; None where it does not apply."""
    status: str
    """cleared, open, breached or invalid."""
    needed: str
    """What is still missing, in words; empty when nothing is."""
    line: str
    """The gate in one readable line."""
    ci_s: tuple[float, float] | None = None
    """Time-uniform interval of the shadow's share x_s / n_s; None where it was not worked out, or nothing was seen."""
    ci_a: tuple[float, float] | None = None
    """The same of the active arm; None as well where the gate has one arm."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; intervals only where there are some."""
        data = asdict(self)
        return {name: value for name, value in data.items() if value is not None or name not in _INTERVALS}


_INTERVALS = ("ci_s", "ci_a")


@dataclass(frozen=True)
class TrafficRow:
    """The traffic rule of a promotion."""

    n_s: float
    min_shadow: int
    ci_low: float
    ci_high: float
    ci_max_width: float
    ci_floor: int
    is_met: bool
    path: str
    """count, interval or closed."""


@dataclass(frozen=True)
class QualityRow:
    """Whether the data may be believed."""

    srm_e: float
    keys_s: int
    keys_a: int
    coverage: float
    missing_s: int
    missing_a: int
    unlabelled_s: float
    late: int
    duplicates: int
    warmup_units: int
    age_s: float
    """Time since both arms last had traffic in one closed window."""


@dataclass(frozen=True)
class Verdict:
    """The canary's verdict at one time."""

    kind: VerdictKind
    reason_code: str
    summary: str
    gates: tuple[GateRow, ...]
    traffic: TrafficRow
    quality: QualityRow
    mean_e_abort: float
    min_e_promote: float
    may_ramp: bool
    """False while the shadow is proven worse than the active twin, even if within its margins, or data are
    invalid.
    """
    decided_at: float
    windows: int
    windows_digest: str
    x_w_ms: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        data = asdict(self)
        data["kind"] = self.kind.value
        data["gates"] = [gate.to_json() for gate in self.gates]
        return data
