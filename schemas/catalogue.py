"""Every event by its CloudEvents type."""

from __future__ import annotations

from schemas.answers import Answer, Evaluation
from schemas.assignments import AssignmentBatch
from schemas.audit import AuditEntry
from schemas.changes import ChangeProposed, ChangeReviewed, ChangeStatus
from schemas.commands import Command
from schemas.decisions import Decision, Progress
from schemas.documents import DocumentChange
from schemas.event import Event
from schemas.feedback import Feedback, FeedbackStatus, QuarantinedFeedback
from schemas.gate_inputs import GateInput
from schemas.outcomes import OutcomeBatch
from schemas.queries import Query
from schemas.readiness import Readiness
from schemas.releases import ReleaseProposed
from schemas.seen_ids import SeenId, SeenIds

EVENTS: dict[str, type[Event]] = {
    event.type: event
    for event in (
        Query,
        AssignmentBatch,
        Answer,
        Evaluation,
        OutcomeBatch,
        Feedback,
        FeedbackStatus,
        QuarantinedFeedback,
        DocumentChange,
        ReleaseProposed,
        GateInput,
        Decision,
        Progress,
        Command,
        Readiness,
        AuditEntry,
        ChangeProposed,
        ChangeReviewed,
        ChangeStatus,
        SeenId,
        SeenIds,
    )
}
