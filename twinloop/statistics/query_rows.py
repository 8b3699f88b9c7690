"""One query's rows, and how the rows of one arm become counts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from . import latency
from .tally import ArmTally

ArmName = Literal["active", "shadow"]


@dataclass(frozen=True)
class Assignment:
    """One query's place. A row with more hops supersedes the earlier row of the same query.

    Leave out queries whose arm was not chosen by the hash (opt-outs, probes, mirrored copies): they would
    bias the comparison.
    """

    query_id: str
    unit: str
    arm: ArmName
    domain: str
    epoch: int
    canary_bp: int
    at: float
    deadline: float
    hops: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of one query; `toxic` is a flag or score in [0, 1], None without a label."""

    query_id: str
    ok: bool
    at: float
    latency_ms: float | None = None
    toxic: float | None = None
    citation_required: bool = False
    citation_valid: bool = False
    classifier: str | None = None
    """Name and version of what made the label."""
    is_turned_away: bool = False
    """Refused under overload: of a mirrored copy this says nothing about the release it was meant for."""


def tally_arm(rows: Iterable[tuple[str, Outcome | None]], *, new_keys: int = 0) -> ArmTally:
    """Counts of one arm from (unit, outcome) pairs; None is a query without an outcome at its deadline."""
    by_unit: dict[str, list[Outcome | None]] = {}
    for unit, outcome in rows:
        by_unit.setdefault(unit, []).append(outcome)
    errors: list[float] = []
    toxic: list[float] = []
    toxic_missing: list[float] = []
    untimed: list[float] = []
    weights: dict[int, list[float]] = {}
    for outcomes in by_unit.values():
        answers = [row for row in outcomes if row is not None and row.ok]
        errors.append((len(outcomes) - len(answers)) / len(outcomes))
        if not answers:
            continue
        labels = [_score(row.toxic) for row in answers]
        known = [score for score in labels if score is not None]
        toxic.append(math.fsum(known) / len(answers))
        toxic_missing.append((len(labels) - len(known)) / len(answers))
        timed = [ms for row in answers if (ms := _time(row.latency_ms)) is not None]
        untimed.append((len(answers) - len(timed)) / len(answers))
        for index in latency.bins_of(timed):
            weights.setdefault(int(index), []).append(1.0 / len(answers))
    given = [row for outcomes in by_unit.values() for row in outcomes if row is not None]
    queries = sum(len(outcomes) for outcomes in by_unit.values())
    return ArmTally(
        queries=queries,
        units=len(by_unit),
        errors=math.fsum(errors),
        missing=queries - len(given),
        answered=len(toxic),
        latency=tuple((index, math.fsum(weights[index])) for index in sorted(weights)),
        latency_missing=math.fsum(untimed),
        toxic=math.fsum(toxic),
        toxic_missing=math.fsum(toxic_missing),
        citations_required=sum(row.ok and row.citation_required for row in given),
        citations_valid=sum(row.ok and row.citation_required and row.citation_valid for row in given),
        new_keys=new_keys,
    )


def tally_copies(rows: Iterable[tuple[str, Outcome | None]], *, new_keys: int = 0) -> ArmTally:
    """Counts of mirrored copies: those that did not come back are `missing`, and no errors.

    Copies are the first to be shed, so that one without an answer is no word against the release; the share that came
    back is judged by itself.
    """
    pairs = list(rows)
    back = [(unit, row) for unit, row in pairs if row is not None and not row.is_turned_away]
    counted = tally_arm(back, new_keys=new_keys)
    return replace(counted, queries=len(pairs), missing=len(pairs) - len(back))


def _time(value: float | None) -> float | None:
    """A latency that can be binned; NaN, infinite and negative ones are missing."""
    return value if value is not None and math.isfinite(value) and value >= 0.0 else None


def _score(value: float | None) -> float | None:
    """A label as a number in [0, 1]; NaN and anything outside is no label at all."""
    return float(value) if value is not None and 0.0 <= value <= 1.0 else None
