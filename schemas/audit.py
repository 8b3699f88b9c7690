"""Who did what through the command line and the API."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints

from schemas.event import EpochMs, Event, Identifier


class AuditEntry(Event):
    """One action of one actor and how it ended."""

    type: ClassVar[str] = "twinloop.audit.v1"

    at: EpochMs
    actor: Identifier
    via: Literal["cli", "api", "gatekeeper", "break-glass", "trainer"]
    action: Identifier
    target: Annotated[str, StringConstraints(max_length=200)] = ""
    result: Literal["accepted", "refused", "failed"]
    detail: Annotated[str, StringConstraints(max_length=500)] = ""
