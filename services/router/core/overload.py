"""Who is turned away under overload: low priority first, and only those who would hardly be answered in time."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.event import Priority

Admission = Literal["route", "deadline", "shed"]


class OverloadPolicy(BaseModel):
    """When waiting queries are shed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    low_share: float = Field(default=0.3, gt=0, le=1)
    """Under backlog, low priority is shed once it has waited this share of its deadline."""
    normal_share: float = Field(default=0.7, gt=0, le=1)
    """Under backlog, normal priority is shed once it has waited this share; high priority never is."""

    @model_validator(mode="after")
    def _low_goes_first(self) -> OverloadPolicy:
        if self.low_share > self.normal_share:
            raise ValueError("low_share is above normal_share: low priority would be shed after normal")
        return self

    def share(self, priority: Priority) -> float:
        """The share of its deadline a query of this priority may wait under backlog."""
        if priority == "high":
            return 1.0
        return self.low_share if priority == "low" else self.normal_share


def admit(
    policy: OverloadPolicy,
    *,
    priority: Priority,
    waited_ms: int,
    deadline_ms: int,
    is_backlogged: bool,
) -> Admission:
    """What happens to a query that has waited so long since it was asked.

    `is_backlogged` says that more records wait behind this batch.
    """
    if waited_ms >= deadline_ms:
        return "deadline"
    if is_backlogged and waited_ms >= policy.share(priority) * deadline_ms:
        return "shed"
    return "route"
