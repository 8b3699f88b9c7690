"""What inference workers publish for readers: one answer a query, or one error that says why there is none."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from schemas.event import Arm, Domain, EpochMs, Event, Frozen, Identifier, Purpose, Sha256, Slot

ErrorKind = Literal[
    "deadline",  # the deadline passed before an answer was ready
    "shed",  # refused under overload
    "truncated",  # the model did not end its answer within the token budget
    "empty",  # the model ended without saying anything
    "rerouted",  # forwarded too often between slots
    "revoked",  # the release was withdrawn and no other may answer (QA and mirrored queries)
    "unavailable",  # the circuit is open or the release cannot be prepared
    "model",  # the runtime failed on this prompt
]


class AnswerError(Frozen):
    """Why there is no answer, for a program and for a person."""

    kind: ErrorKind
    detail: Annotated[str, StringConstraints(max_length=500)]


class Citation(Frozen):
    """A document of the answering release's own index that the answer points at."""

    document_id: Identifier
    """The id of the cited document."""
    title: Annotated[str, StringConstraints(max_length=500)] = ""
    source: Annotated[str, StringConstraints(max_length=500)] = ""
    retrieved: bool
    """Whether this document was among the passages given to the model."""


class Timings(Frozen):
    """Where the time went, in milliseconds; total runs from assignment to answer."""

    queued_ms: Annotated[float, Field(ge=0)]
    """The rest of the total: waiting in the topic and for its batch."""
    retrieval_ms: Annotated[float, Field(ge=0)]
    """Looking up passages."""
    generation_ms: Annotated[float, Field(ge=0)]
    """Generating the text."""
    total_ms: Annotated[float, Field(ge=0)]


class Answer(Event):
    """The one answer to one user's query; exactly one of `text` and `error` is present."""

    type: ClassVar[str] = "twinloop.answer.v1"

    query_id: Identifier
    """The query it answers."""
    answered_at: EpochMs
    text: str | None = None
    """What the model said, with its citations in brackets."""
    citations: tuple[Citation, ...] = ()
    """The documents the text cites."""
    error: AnswerError | None = None
    """Why there is no text."""
    domain: Domain | None = None
    """Whose adapter and index answered."""
    release: Sha256 | None = None
    """Absent only where the query ended before any release was chosen."""
    slot: Slot | None = None
    """The slot that answered."""
    arm: Arm | None = None
    """Its role when the query was assigned."""
    epoch: Annotated[int, Field(ge=1)] | None = None
    """The routing epoch it was answered under."""
    adapter: Sha256 | None = None
    """Digest of the adapter that answered."""
    index: Sha256 | None = None
    """Digest of the index that was searched."""
    rules: Sha256 | None = None
    """Digest of the router rules that chose the domain."""
    receipt: str | None = None
    """Signed token to quote in feedback; absent where no release answered."""
    timings: Timings | None = None
    hops: Annotated[int, Field(ge=0, le=16)] = 0
    """How often it was forwarded between slots."""
    unconfirmed: bool = False
    """True where Redis was silent and the last known routing state was used."""


class Evaluation(Answer):
    """An answer that no user sees: to a QA probe or a mirrored query."""

    type: ClassVar[str] = "twinloop.evaluation.v1"

    purpose: Purpose
