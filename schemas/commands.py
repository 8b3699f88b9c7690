"""Orders from people and from the API, signed."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StringConstraints

from schemas.event import EpochMs, Event, Identifier, Sha256

Action = Literal[
    "promote", "rollback", "abort", "pause", "resume", "jump", "approve", "train", "ab_start", "ab_stop"
]


class Command(Event):
    """One order; refused unless signed by a known key with the right role, fresh and never seen before."""

    type: ClassVar[str] = "twinloop.command.v1"

    nonce: Identifier
    """Unique for ever; a second command with the same nonce is refused."""
    actor: Identifier
    action: Action
    release: Sha256 | None = None
    """The release meant; `rollback` without one means the previous release."""
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    issued_at: EpochMs
    expires_at: EpochMs
    key_id: Identifier
    signature: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]{86})?$")] = ""
    """Ed25519 over the canonical JSON without this field."""
