"""What producers publish: one question, and how its answer is wanted."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from schemas.event import Domain, EpochMs, Event, Identifier, Priority


class Query(Event):
    """One question to be answered exactly once."""

    type: ClassVar[str] = "twinloop.query.v1"

    id: Identifier
    """Chosen by the producer; a second publication of the same id is dropped by the router."""
    text: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    """The question as the user put it."""
    asked_at: EpochMs
    """When the producer published it; the deadline counts from here."""
    subject: Identifier | None = None
    """The sticky unit of canary assignment, a session or a user; the query id where absent."""
    domain: Domain | None = None
    """Fixes the domain where the producer knows it; otherwise the release's own rules choose."""
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] = 10_000
    """After this many milliseconds the answer is a `deadline` error, never a late answer."""
    priority: Priority = "normal"
    """What is shed first under overload: low before normal before high."""
    client: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:@-]{0,64}$")] = ""
    """Who waits for the answer; copied into a header of the answer so that readers can filter."""
    canary_opt_out: bool = False
    """True keeps this query on the active slot."""

    @property
    def sticky_subject(self) -> str:
        return self.subject or self.id

    @property
    def deadline_at(self) -> int:
        return self.asked_at + self.deadline_ms
