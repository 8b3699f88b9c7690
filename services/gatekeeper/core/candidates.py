"""Which candidate is staged, which waits, and how one ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from schemas.gate_inputs import ProposalSeen
from services.gatekeeper.core.state import Candidate, Card, Preparing
from services.gatekeeper.core.turn import Turn, with_shadow, without_canary

Outcome = Literal["failed", "superseded", "returned"]
FEEDBACK: dict[Outcome, str] = {"failed": "quarantine", "superseded": "retrain", "returned": "retrain"}
"""What the trainer does with the feedback the candidate was trained on."""


def on_proposal(turn: Turn, seen: ProposalSeen) -> None:
    """Take note of a proposal; the newest one that is sound waits for its turn."""
    if 0 <= seen.source_offset <= turn.state.proposal_offset:
        return  # The edge read it twice after a crash.
    turn.set(proposal_offset=max(turn.state.proposal_offset, seen.source_offset))
    release = seen.release
    if seen.verdict == "forged":
        turn.audit(
            actor=seen.proposed_by, action="propose", target=release, result="refused", detail=seen.detail
        )
        return
    if release in turn.state.cards:
        outcome = turn.state.cards[release].outcome
        turn.audit(
            actor=seen.proposed_by,
            action="propose",
            target=release,
            result="refused",
            detail=f"this release was proposed before and is {outcome}",
        )
        return
    candidate = Candidate(
        release=release, parent=seen.parent, rules=seen.rules, proposed_offset=turn.state.offset
    )
    _remember(turn, candidate)
    if seen.verdict == "broken":
        _end_unstaged(
            turn, candidate, "failed", reason="evidence", line=seen.detail or "its evidence names problems"
        )
        return
    older = turn.state.waiting
    turn.set(waiting=candidate)
    if older is not None:
        _end_unstaged(
            turn,
            older,
            "superseded",
            reason="superseded",
            line=f"{release[:8]} is newer and waits in its place",
        )


def stage_next(turn: Turn) -> None:
    """Stage the waiting candidate where nothing stands in its way; called after every record."""
    state = turn.state
    candidate = state.waiting
    if candidate is None or state.stage is not None or state.paused_by is not None or state.routing is None:
        return
    turn.set(waiting=None)
    active = state.routing.active_release
    if candidate.parent != active:
        parent = "nothing" if candidate.parent is None else candidate.parent[:8]
        _end_unstaged(
            turn,
            candidate,
            "superseded",
            reason="stale_parent",
            line=f"built on {parent}, but {active[:8]} is active; the trainer builds it again",
        )
        return
    turn.set(
        stage=Preparing(candidate=candidate, since=state.now),
        cards={**turn.state.cards, candidate.release: _card(candidate, "staged")},
    )
    turn.decide(
        "stage",
        routing=with_shadow(without_canary(state.routing), candidate.release),
        reason="next_candidate",
        line=f"takes slot {state.routing.shadow} to be prepared and examined",
        release=candidate.release,
    )


def end_candidate(
    turn: Turn,
    candidate: Candidate,
    outcome: Outcome,
    *,
    kind: Literal["reject", "abort"],
    reason: str,
    line: str,
    evidence: dict[str, JsonValue] | None = None,
) -> None:
    """End a staged candidate: the shadow slot gets the previous release back; one that failed is revoked."""
    release = candidate.release
    revoked = turn.state.revoked
    turn.set(
        stage=None,
        cards={**turn.state.cards, release: _card(candidate, outcome)},
        revoked=(*revoked, release) if outcome == "failed" and release not in revoked else revoked,
    )
    routing = turn.routing
    back = routing.previous or routing.active_release
    turn.decide(
        kind,
        routing=with_shadow(without_canary(routing), back),
        reason=reason,
        line=line,
        release=release,
        evidence={**(evidence or {}), "outcome": outcome, "feedback": _feedback(outcome, evidence)},
    )


def _feedback(outcome: Outcome, evidence: Mapping[str, JsonValue] | None) -> str:
    """What becomes of the feedback; where some domains are spared, only that of the others is set aside."""
    return "quarantine_domains" if evidence and "failed_domains" in evidence else FEEDBACK[outcome]


def _end_unstaged(turn: Turn, candidate: Candidate, outcome: Outcome, *, reason: str, line: str) -> None:
    """End a candidate that never left the queue: routing stays as it is."""
    turn.set(cards={**turn.state.cards, candidate.release: _card(candidate, outcome)})
    turn.decide(
        "reject",
        routing=turn.routing,
        reason=reason,
        line=line,
        release=candidate.release,
        evidence={"outcome": outcome, "feedback": FEEDBACK[outcome]},
    )


def _remember(turn: Turn, candidate: Candidate) -> None:
    turn.set(cards={**turn.state.cards, candidate.release: _card(candidate, "waiting")})


def _card(candidate: Candidate, outcome: str) -> Card:
    return Card.model_validate({"rules": candidate.rules, "parent": candidate.parent, "outcome": outcome})
