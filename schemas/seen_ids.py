"""The router's de-duplication changelog."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.event import EpochMs, Event, Identifier


class SeenIds(Event):
    """Query ids that were routed or refused in one micro-batch; produced to their origin partition."""

    type: ClassVar[str] = "twinloop.seen-ids.v1"

    origin: Annotated[int, Field(ge=0)]
    seen_at: EpochMs
    ids: Annotated[tuple[Identifier, ...], Field(min_length=1)]


class SeenId(Event):
    """A single query id that was routed, as earlier routers wrote it; still read."""

    type: ClassVar[str] = "twinloop.seen-id.v1"

    id: Identifier
    origin: Annotated[int, Field(ge=0)]
    seen_at: EpochMs
