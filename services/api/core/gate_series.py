"""The gates of one canary over time: value, limit, interval and e-value of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

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
    """Time-uniform 95 % interval of the share of shadow queries that count against the gate."""
    high: float | None
    n: float


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
        self.ended = decision


def gate_points(gates: tuple[GateProgress, ...]) -> dict[str, GatePoint]:
    """The numbers of each gate with the interval that holds at every look."""
    counted = [gate for gate in gates if (_number(gate, "n_s") or 0.0) > 0]
    n = np.array([_number(gate, "n_s") for gate in counted], dtype=np.float64)
    x = np.minimum(np.array([_number(gate, "x_s") or 0.0 for gate in counted], dtype=np.float64), n)
    low, high = confidence_sequence(x, n) if counted else (np.zeros(0), np.ones(0))
    between = {gate.name: (float(low[i]), float(high[i])) for i, gate in enumerate(counted)}
    return {gate.name: _point(gate, between.get(gate.name)) for gate in gates}


def _point(gate: GateProgress, between: tuple[float, float] | None) -> GatePoint:
    return GatePoint(
        e=_number(gate, "e"),
        threshold=_number(gate, "threshold"),
        shadow=_number(gate, "est_s"),
        active=_number(gate, "est_a"),
        low=between[0] if between else None,
        high=between[1] if between else None,
        n=_number(gate, "n_s") or 0.0,
    )


def _number(gate: GateProgress, name: str) -> float | None:
    value = gate.values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
