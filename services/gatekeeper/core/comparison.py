"""What mirrored traffic showed, as evidence of a decision and as the gates of a progress record."""

from __future__ import annotations

from pydantic import JsonValue

from schemas.decisions import GateProgress
from twinloop.statistics.mirror import MirrorState
from twinloop.statistics.verdict import GateRow

GATE_VALUES = ("e", "threshold", "n_s", "x_s", "n_a", "x_a", "est_s", "est_a")
"""Numbers of a gate that its progress carries."""


def comparison(state: MirrorState, rows: tuple[GateRow, ...]) -> dict[str, JsonValue]:
    """How many copies there were, and every gate; the arm called the shadow's is the one under suspicion."""
    return {
        "suspect": state.suspect,
        "copies_sent": state.sent,
        "copies_back": state.back,
        "coverage": state.coverage,
        "units": state.units,
        "gates": [row.to_json() for row in rows],
        "windows_digest": state.memory.windows_digest,
    }


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
