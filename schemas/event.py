"""The base of everything that travels, and the words its fields are made of."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Domain = Literal["law", "med", "fin", "gen"]
DOMAINS: tuple[Domain, ...] = ("law", "med", "fin", "gen")

Slot = Literal["blue", "green"]
SLOTS: tuple[Slot, ...] = ("blue", "green")

Arm = Literal["active", "shadow"]
Purpose = Literal["user", "qa", "mirror"]
Priority = Literal["low", "normal", "high"]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Lower-case hexadecimal SHA-256."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
"""What names a query, a feedback, a document or an actor: safe in keys, file names and log lines."""

EpochMs = Annotated[int, Field(ge=0, le=4_102_444_800_000)]
"""Milliseconds since 1970-01-01 UTC, not past the year 2100."""

Unit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""Keyed hash of a query's subject: the sticky unit the statistics count, without naming anybody."""


class Frozen(BaseModel):
    """A value that travels: immutable, and refusing every field it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null", validate_default=True)


class Event(Frozen):
    """A whole record value; `type` is its CloudEvents type and carries the version."""

    type: ClassVar[str]
