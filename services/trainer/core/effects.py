"""What the ledger says and how it reads decisions: small pure steps of the lifecycle."""

from __future__ import annotations

from schemas.audit import AuditEntry
from schemas.changes import ChangeStatus
from schemas.decisions import Decision
from schemas.event import Domain
from schemas.feedback import Disposition, Feedback, FeedbackStatus, QuarantinedFeedback
from services.trainer.core.cleaning import Verdict
from services.trainer.core.ledger_state import TaughtRow
from services.trainer.core.rows import ReplayRow, replay_weight

Effect = FeedbackStatus | QuarantinedFeedback | ChangeStatus | AuditEntry
"""Something to tell; publishing it twice changes nothing, because the last status of an id holds."""


def ending_of(decision: Decision, release: str) -> str | None:
    """How a decision ends a candidate, None where it does not; an end without an outcome is a failure."""
    outcome = decision.evidence.get("outcome")
    if decision.evidence.get("ended_candidate") == release:
        return str(outcome or "superseded")
    if decision.kind in ("reject", "abort") and decision.release == release:
        return str(outcome or "failed")
    return "superseded" if decision.kind == "adopt" else None


def harmed_domains(decision: Decision, release: str) -> frozenset[str]:
    """The domains a candidate failed in, where the decision spares the others; empty where it failed as a whole."""
    named = decision.evidence.get("failed_domains") if decision.release == release else None
    return frozenset(map(str, named)) if isinstance(named, list) else frozenset()


def frozen_release(decision: Decision) -> tuple[str, str] | None:
    """(release, reason) where a decision says that whatever came of a release is to be set aside; else None."""
    freeze = decision.evidence.get("freeze")
    if not isinstance(freeze, dict):
        return None
    return str(freeze.get("release")), str(freeze.get("reason") or decision.reason)


def replay_row(taught: TaughtRow, *, update: str) -> ReplayRow:
    """The row as the replay buffer keeps it; `update` is the release that taught it."""
    row = taught.row
    return ReplayRow(
        id=row.id,
        domain=row.domain,
        question=row.question,
        answer=row.answer,
        passage=taught.passage,
        rater=row.rater,
        weight=replay_weight(row.feedback),
        update=update,
    )


def set_aside(feedback: Feedback, verdict: Verdict, *, domain: Domain | None, at: int) -> list[Effect]:
    reason = verdict.reason or verdict.status
    if verdict.status == "rejected":
        return [status_of(feedback, "rejected", reason=reason, domain=domain, at=at)]
    return [
        QuarantinedFeedback(feedback=feedback, reason=reason, detector=verdict.detector[:200], at=at),
        status_of(feedback, "quarantined", reason=reason, domain=domain, at=at),
    ]


def status_of(
    feedback: Feedback,
    status: Disposition,
    *,
    reason: str | None = None,
    domain: Domain | None,
    release: str | None = None,
    at: int,
) -> FeedbackStatus:
    return FeedbackStatus(
        feedback_id=feedback.id,
        query_id=feedback.query_id,
        status=status,
        reason=reason,
        domain=domain,
        release=release,
        at=at,
    )


def remember(memory: dict[str, None] | dict[str, str], name: str, value: str | None, limit: int) -> None:
    memory[name] = value  # type: ignore[assignment]
    while len(memory) > limit:
        del memory[next(iter(memory))]
