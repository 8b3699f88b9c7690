"""The router's de-duplication changelog."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.event import EpochMs, Event, Identifier


class SeenId(Event):
    """A query id was routed; keyed by it, compacted, produced to its origin partition."""

    type: ClassVar[str] = "twinloop.seen-id.v1"

    id: Identifier
    origin: Annotated[int, Field(ge=0)]
    seen_at: EpochMs
