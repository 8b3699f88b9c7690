"""What gates showed, as evidence of a decision and as the gates of a progress record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from pydantic import JsonValue

from schemas.decisions import GateProgress
from services.gatekeeper.core.policy import GatePolicy
from twinloop.statistics.intervals import with_intervals
from twinloop.statistics.mirror import MirrorState
from twinloop.statistics.verdict import GateRow, Verdict

GATE_VALUES = ("e", "threshold", "n_s", "x_s", "n_a", "x_a", "est_s", "est_a")
"""Numbers of a gate that its progress carries ..."""
INTERVALS = ("ci_s", "ci_a")
"""... and where it has them, its intervals."""


def comparison(policy: GatePolicy, state: MirrorState, rows: tuple[GateRow, ...]) -> dict[str, JsonValue]:
    """How many mirrored copies there were, and every gate; the arm called the shadow's is the one under suspicion."""
    return {
        "suspect": state.suspect,
        "copies_sent": state.sent,
        "copies_back": state.back,
        "coverage": state.coverage,
        "units": state.units,
        "gates": [row.to_json() for row in with_intervals(rows, policy.watch.interval_alpha)],
        "windows_digest": state.memory.windows_digest,
    }


def verdict_evidence(policy: GatePolicy, verdict: Verdict) -> JsonValue:
    """A verdict as evidence. The intervals are worked out here only, as they take a millisecond."""
    gates = with_intervals(verdict.gates, policy.watch.interval_alpha)
    return cast(JsonValue, replace(verdict, gates=gates).to_json())


@dataclass(frozen=True)
class Spared:
    """Domains a candidate did not harm while it harmed others: those may come again."""

    harmed: tuple[str, ...]
    spared: tuple[str, ...]

    @property
    def evidence(self) -> dict[str, JsonValue]:
        return {"failed_domains": list(self.harmed), "spared_domains": list(self.spared)}

    @property
    def line(self) -> str:
        return f"{', '.join(self.spared)} may be proposed again without {', '.join(self.harmed)}"


def spared_domains(rows: tuple[GateRow, ...]) -> Spared | None:
    """Which domains show no evidence of harm, where others do; None where harm cannot be told apart."""
    domains = [row for row in rows if row.kind == "domain"]
    harmed = tuple(row.name for row in domains if row.status in ("breached", "invalid"))
    spared = tuple(row.name for row in domains if row.name not in harmed)
    return Spared(harmed, spared) if harmed and spared else None


def gate_progress(policy: GatePolicy, rows: tuple[GateRow, ...]) -> tuple[GateProgress, ...]:
    """Gates as a progress record carries them."""
    return tuple(
        GateProgress.model_validate(
            {
                "name": f"{row.kind}:{row.name}",
                "line": row.line[:500],
                "status": row.status,
                "values": {name: getattr(row, name) for name in GATE_VALUES} | _intervals(row),
            }
        )
        for row in with_intervals(rows, policy.watch.interval_alpha)
    )


def _intervals(row: GateRow) -> dict[str, JsonValue]:
    found = {name: getattr(row, name) for name in INTERVALS}
    return {name: list(between) for name, between in found.items() if between is not None}
