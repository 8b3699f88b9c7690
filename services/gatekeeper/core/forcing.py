"""A promotion ordered during the examination: it skips the gates, never the outgoing release's blob check."""

from __future__ import annotations

from services.gatekeeper.core.candidates import end_candidate
from services.gatekeeper.core.state import Candidate, Forcing
from services.gatekeeper.core.turn import Turn


def force_promotion(turn: Turn, candidate: Candidate, *, by: str, detail: str) -> None:
    """Ask for the blob check; its answer promotes."""
    turn.set(stage=Forcing(candidate=candidate, by=by, detail=detail, since=turn.state.now))
    turn.check_blobs()


def watch_forcing(turn: Turn, stage: Forcing) -> None:
    """No answer in time means no promotion."""
    limit_s = turn.policy.promote.blob_check_timeout_s
    if turn.state.now - stage.since > limit_s * 1000:
        end_candidate(
            turn,
            stage.candidate,
            "returned",
            kind="abort",
            reason="outgoing_incomplete",
            line=f"the outgoing release was not read back within {limit_s:g} s",
        )
    else:
        turn.tell(
            f"promotion ordered by {stage.by}: the outgoing release is read back",
            release=stage.candidate.release,
            needed="every blob of the outgoing release, read back and whole",
        )
