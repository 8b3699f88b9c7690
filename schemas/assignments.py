"""What the router (or a forwarding worker) decided for each query: the denominators of every gate."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.event import Arm, Domain, EpochMs, Event, Frozen, Identifier, Purpose, Sha256, Slot, Unit


class AssignmentRow(Frozen):
    """One query's place: which slot and release answers it, decided under which epoch."""

    id: Identifier
    unit: Unit
    bucket: Annotated[int, Field(ge=0, le=9999)]
    slot: Slot
    arm: Arm
    release: Sha256
    epoch: Annotated[int, Field(ge=1)]
    purpose: Purpose
    domain: Domain
    assigned_at: EpochMs
    """When the query was first assigned; a forwarding worker keeps it."""
    deadline_at: EpochMs
    hops: Annotated[int, Field(ge=0, le=16)] = 0
    """How often the query was forwarded; a row with more hops supersedes the earlier row of the same id."""
    unconfirmed: bool = False
    """Decided by the last known good state while Redis was silent."""


class AssignmentBatch(Event):
    """One micro-batch of one partition of `queries`; written in the transaction that routes it."""

    type: ClassVar[str] = "twinloop.assignments.v1"

    origin: Annotated[int, Field(ge=0)]
    """The partition of `queries` these rows came from."""
    router: Identifier
    """The process that decided."""
    rows: Annotated[tuple[AssignmentRow, ...], Field(min_length=1)]
