"""What each process has ready and which epoch it acts on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from schemas.event import EpochMs, Event, Identifier, Sha256, Slot


class Readiness(Event):
    """Sent when it changes and every few seconds; a worker that falls silent is not counted as ready."""

    type: ClassVar[str] = "twinloop.readiness.v1"

    worker: Identifier
    service: Literal["router", "inference"]
    slot: Slot | None = None
    """The slot an inference worker serves."""
    incarnation: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32})?$")] = ""
    epoch: Annotated[int, Field(ge=0)]
    """The highest epoch it has installed; 0 before the first."""
    applied_at_us: Annotated[int, Field(ge=0)]
    """Microseconds since 1970 UTC at which it installed that epoch."""
    releases: tuple[Sha256, ...] = ()
    """Releases it can answer with at once."""
    problems: tuple[Annotated[str, StringConstraints(max_length=500)], ...] = ()
    """Releases it could not prepare, and why."""
    at: EpochMs
    stopping: bool = False
