"""What collectors publish about answers, and what became of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints, model_validator

from schemas.event import Domain, EpochMs, Event, Identifier, Sha256

Rating = Literal["up", "down"]
Disposition = Literal["accepted", "rejected", "quarantined", "counted", "trained"]


class Feedback(Event):
    """A rating, a correction, a citation flag or a retraction, idempotent by id."""

    type: ClassVar[str] = "twinloop.feedback.v1"

    id: Identifier
    query_id: Identifier
    receipt: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    """The answer's receipt, unchanged; for imported rows one that an operator signed."""
    question: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    """The question as asked; its digest must equal the one in the receipt."""
    rater: Identifier
    """Who gives it; limits hold for each rater."""
    given_at: EpochMs
    """When it was given."""
    rating: Rating | None = None
    """Whether the answer helped."""
    correction: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None
    """The answer that should have been given, with its citation where one is due."""
    citation_flag: Literal["wrong", "missing"] | None = None
    """What is wrong with the citation, where something is."""
    retracts: Identifier | None = None
    """The id of an earlier feedback of the same rater that is withdrawn."""

    @model_validator(mode="after")
    def says_something(self) -> Feedback:
        if not (self.rating or self.correction or self.citation_flag or self.retracts):
            raise ValueError("needs at least one of rating, correction, citation_flag, retracts")
        return self


class FeedbackStatus(Event):
    """What became of one feedback; the last status of an id holds."""

    type: ClassVar[str] = "twinloop.feedback-status.v1"

    feedback_id: Identifier
    query_id: Identifier
    status: Disposition
    reason: Annotated[str, StringConstraints(max_length=500)] | None = None
    """A short code, with `rejected` and `quarantined`."""
    domain: Domain | None = None
    release: Sha256 | None = None
    """The release that was trained on it, with `trained`."""
    at: EpochMs


class QuarantinedFeedback(Event):
    """A feedback kept aside for a person, with what raised the doubt."""

    type: ClassVar[str] = "twinloop.feedback-quarantined.v1"

    feedback: Feedback
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    detector: Annotated[str, StringConstraints(max_length=200)]
    """Name and version of the check that raised it."""
    at: EpochMs
