"""When a promotion may be asked for: with the evidence there, or by force, which takes two people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.commands import Action
from schemas.decisions import GateProgress
from services.api.core.read_model import ReadModel

PROMOTE = "promote:"
"""How the names of gates begin that speak for a promotion."""


@dataclass(frozen=True)
class Give:
    """Sign this order now."""

    action: Action
    release: str


@dataclass(frozen=True)
class Conflict:
    """It may not be ordered; `code` names the problem's type."""

    code: Literal["nothing-staged", "other-candidate", "no-evidence"]
    why: str
    missing: tuple[str, ...] = ()


def judge_swap(model: ReadModel, *, release: str | None, force: bool) -> Give | Conflict:
    """What a swap comes to: an approval where the evidence is there, a forced promotion where that is asked for.

    Of two approvers who force it, the gatekeeper takes the second one's order as the one that counts.
    """
    candidate = model.candidate
    if candidate is None:
        return Conflict("nothing-staged", "no candidate is staged: there is nothing to swap to")
    if release is not None and release != candidate:
        return Conflict("other-candidate", f"{release[:12]} is not the staged candidate, {candidate[:12]} is")
    if force:
        return Give("promote", candidate)
    missing = missing_evidence(model)
    if missing:
        why = "the gates have not cleared; two approvers together may force it"
        return Conflict("no-evidence", why, missing)
    return Give("approve", candidate)


def missing_evidence(model: ReadModel) -> tuple[str, ...]:
    """What still speaks against the staged candidate or does not yet speak for it; nothing once all gates cleared."""
    state, last = model.state, model.canary.last
    if state is None or state.phase != "canary":
        return ("the candidate is not in its canary",)
    if model.canary.release != model.candidate or last is None:
        return ("the canary has not reported yet",)
    if not any(gate.name.startswith(PROMOTE) for gate in last.gates):
        return ("no gate for a promotion has been reported",)
    open_gates = tuple(f"{gate.name}: {gate.line}" for gate in last.gates if _stands_in_the_way(gate))
    if open_gates:
        return open_gates
    # The gatekeeper says nothing of what it needs only where every gate and the traffic rule are met. While promotion
    # is paused an approval would swap nothing: what is missing then is a resume.
    return () if "approver" in last.needed or not last.needed else (last.needed,)


def _stands_in_the_way(gate: GateProgress) -> bool:
    if gate.name.startswith(PROMOTE):
        return gate.status != "cleared"
    return gate.status in ("breached", "invalid")
