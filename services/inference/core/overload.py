"""Who is turned away while a worker cannot keep up: low priority first, and only when the backlog lasts.

A short backlog, such as after a broker's restart, is worked off; one that lasts is cut to a bounded wait, because a
queue that stands adds its length to every answer (CoDel, Nichols and Jacobson 2012, acts on the same two measures).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.inference.core.routed_query import RoutedQuery


class OverloadPolicy(BaseModel):
    """When a waiting query is shed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after_ms: int = Field(default=3000, ge=0, le=600_000)
    """A backlog is worked off for so long before anything is shed; shorter than any deadline worth serving."""
    low_wait_ms: int = Field(default=200, ge=0, le=600_000)
    """Then low priority, and mirrored copies, are shed once they have waited so long since they were asked."""
    normal_wait_ms: int = Field(default=500, ge=0, le=600_000)
    """Then normal priority is shed once it has waited so long."""
    high_wait_ms: int = Field(default=1500, ge=0, le=600_000)
    """Then high priority is shed once it has waited so long."""

    @model_validator(mode="after")
    def _low_goes_first(self) -> OverloadPolicy:
        if not self.low_wait_ms <= self.normal_wait_ms <= self.high_wait_ms:
            raise ValueError("low_wait_ms <= normal_wait_ms <= high_wait_ms: low priority is shed first")
        return self


def is_shed(policy: OverloadPolicy, routed: RoutedQuery, *, now_ms: int, backlog_ms: int) -> bool:
    """Whether a query ends unanswered; `backlog_ms` is how long full batches have come without a break.

    QA probes are never shed: a release must not fail its examination because users are many.
    """
    purpose, priority = routed.stamp.purpose, routed.query.priority
    if backlog_ms < policy.after_ms or purpose == "qa":
        return False
    waited_ms = now_ms - routed.query.asked_at
    if purpose == "mirror" or priority == "low":
        return waited_ms >= policy.low_wait_ms
    return waited_ms >= (policy.high_wait_ms if priority == "high" else policy.normal_wait_ms)
