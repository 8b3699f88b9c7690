"""What gates showed, as evidence of a decision and as the gates of a progress record."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from schemas.decisions import GateProgress
from twinloop.statistics.mirror import MirrorState
from twinloop.statistics.verdict import GateRow

GATE_VALUES = ("e", "threshold", "n_s", "x_s", "n_a", "x_a", "est_s", "est_a")
"""Numbers of a gate that its progress carries."""


def comparison(state: MirrorState, rows: tuple[GateRow, ...]) -> dict[str, JsonValue]:
    """How many mirrored copies there were, and every gate; the arm called the shadow's is the one under suspicion."""
    return {
        "suspect": state.suspect,
        "copies_sent": state.sent,
        "copies_back": state.back,
        "coverage": state.coverage,
        "units": state.units,
        "gates": [row.to_json() for row in rows],
        "windows_digest": state.memory.windows_digest,
    }


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


def gate_progress(rows: tuple[GateRow, ...]) -> tuple[GateProgress, ...]:
    """Gates as a progress record carries them."""
    return tuple(
        GateProgress.model_validate(
            {
                "name": f"{row.kind}:{row.name}",
                "line": row.line[:500],
                "status": row.status,
                "values": {name: getattr(row, name) for name in GATE_VALUES},
            }
        )
        for row in rows
    )
