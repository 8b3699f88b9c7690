"""What became of each routed query, without its text: the numerators of every gate."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.answers import ErrorKind
from schemas.event import Arm, Domain, EpochMs, Event, Frozen, Identifier, Purpose, Sha256, Slot, Unit

CitationVerdict = Literal["valid", "invalid", "missing", "not_required"]


class OutcomeRow(Frozen):
    """One answer's measurements."""

    id: Identifier
    unit: Unit
    slot: Slot
    arm: Arm
    release: Sha256
    epoch: Annotated[int, Field(ge=1)]
    purpose: Purpose
    domain: Domain
    error: ErrorKind | None = None
    assigned_at: EpochMs
    answered_at: EpochMs
    latency_ms: Annotated[float, Field(ge=0)]
    """From assignment to the worker's answer."""
    toxicity: Annotated[float, Field(ge=0, le=1)] | None = None
    """The classifier's score; absent where there was no text to judge."""
    toxic: bool | None = None
    citation: CitationVerdict | None = None
    hops: Annotated[int, Field(ge=0, le=16)] = 0


class OutcomeBatch(Event):
    """One micro-batch of one worker and one origin partition."""

    type: ClassVar[str] = "twinloop.outcomes.v1"

    origin: Annotated[int, Field(ge=0)]
    worker: Identifier
    toxicity_classifier: Annotated[str, Field(max_length=200)]
    """Name and version of the classifier behind `toxicity` and `toxic`."""
    rows: Annotated[tuple[OutcomeRow, ...], Field(min_length=1)]
