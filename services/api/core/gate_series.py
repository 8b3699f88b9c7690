"""The gates of one canary over time: value, limit, interval and e-value of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from schemas.decisions import Decision, GateProgress, Progress
from schemas.event import EpochMs, Sha256
from twinloop.statistics.proportions import confidence_sequence

KEPT_POINTS = 400


@dataclass(frozen=True)
class GatePoint:
    """One gate at one time; shares are between 0 and 1, None where nothing was measured."""

    e: float | None
    threshold: float | None
    shadow: float | None
    """The shadow's estimate: a share, or milliseconds for p95."""
    active: float | None
    low: float | None
    """Time-uniform interval of the share of shadow queries that count against the gate (95 % as shipped) ..."""
    high: float | None
    n: float
    share: float | None = None
    """... that share, and the same of the active arm; None where the gate has one arm."""
    share_active: float | None = None
    low_active: float | None = None
    high_active: float | None = None


@dataclass(frozen=True)
class SeriesPoint:
    """Every gate at one time."""

    at: EpochMs
    gates: Mapping[str, GatePoint]


class GateSeries:
    """Fed with a canary's progress; keeps every second point again whenever it grows too long."""

    def __init__(self, release: Sha256 | None = None, started: Decision | None = None) -> None:
        self.release, self.started = release, started
        self.ended: Decision | None = None
        self.last: Progress | None = None
        self.points: list[SeriesPoint] = []

    def add(self, progress: Progress) -> None:
        self.last = progress
        self.points.append(SeriesPoint(progress.at, gate_points(progress.gates)))
        if len(self.points) > KEPT_POINTS:
            self.points = [*self.points[:-1:2], self.points[-1]]

    def end(self, decision: Decision) -> None:
        """Ended by `decision`, whose evidence is the last point: no progress record is made of the deciding window."""
        self.ended = decision
        gates = judged_gates(decision)
        if gates and self.last is not None:
            self.add(self.last.model_copy(update={"at": decision.decided_at, "gates": gates}))


def judged_gates(decision: Decision) -> tuple[GateProgress, ...]:
    """The gates of a verdict as a progress record names them; none where the decision rests on no comparison."""
    verdict = decision.evidence.get("verdict")
    rows = verdict.get("gates") if isinstance(verdict, dict) else None
    return tuple(_judged_gate(row) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


def _judged_gate(row: Mapping[str, JsonValue]) -> GateProgress:
    told = ("name", "kind", "line", "status")
    return GateProgress.model_validate(
        {
            "name": f"{row['kind']}:{row['name']}",
            "line": str(row["line"])[:500],
            "status": row["status"],
            "values": {name: value for name, value in row.items() if name not in told},
        }
    )


def gate_points(gates: tuple[GateProgress, ...]) -> dict[str, GatePoint]:
    """The numbers of each gate with the intervals that hold at every look.

    A gatekeeper whose policy has no `watch.interval_alpha` logs none: then the shadow's 95 % is worked out here.
    """
    counted = [gate for gate in gates if "ci_s" not in gate.values and (_number(gate, "n_s") or 0.0) > 0]
    n = np.array([_number(gate, "n_s") for gate in counted], dtype=np.float64)
    x = np.minimum(np.array([_number(gate, "x_s") or 0.0 for gate in counted], dtype=np.float64), n)
    low, high = confidence_sequence(x, n) if counted else (np.zeros(0), np.ones(0))
    between = {gate.name: (float(low[i]), float(high[i])) for i, gate in enumerate(counted)}
    return {gate.name: _point(gate, between.get(gate.name) or _logged(gate, "ci_s")) for gate in gates}


def _point(gate: GateProgress, between: tuple[float, float] | None) -> GatePoint:
    active = _logged(gate, "ci_a")
    return GatePoint(
        e=_number(gate, "e"),
        threshold=_number(gate, "threshold"),
        shadow=_number(gate, "est_s"),
        active=_number(gate, "est_a"),
        low=between[0] if between else None,
        high=between[1] if between else None,
        n=_number(gate, "n_s") or 0.0,
        share=_share(gate, "x_s", "n_s"),
        share_active=_share(gate, "x_a", "n_a"),
        low_active=active[0] if active else None,
        high_active=active[1] if active else None,
    )


def _logged(gate: GateProgress, name: str) -> tuple[float, float] | None:
    """An interval as the gatekeeper worked it out."""
    match gate.values.get(name):
        case [int() | float() as low, int() | float() as high]:
            return float(low), float(high)
    return None


def _share(gate: GateProgress, hits: str, units: str) -> float | None:
    x, n = _number(gate, hits), _number(gate, units)
    return None if x is None or not n else min(x / n, 1.0)


def _number(gate: GateProgress, name: str) -> float | None:
    value = gate.values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
