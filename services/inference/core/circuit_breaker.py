"""When the model keeps failing for a release: stop calling it, tell its users at once, and try again after a while.

The circuit breaker of M. Nygard, "Release It!" (2007): closed while calls succeed, open after too many failures in a
row, half open for one trial call after a pause.

A circuit belongs to one release. A worker answers with several of them at a time, and a broken candidate must not
silence the release that serves beside it: a circuit for a worker, or for the foundation all of them share, would. A
circuit for an adapter would be one too few, since a candidate shares most of its adapters with its parent. The release
is what is stamped on a query, judged by the gates and rolled back; where the foundation itself fails, each release's
circuit opens by its own failures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CircuitState = Literal["closed", "open", "half_open"]
CIRCUIT_STATES: tuple[CircuitState, ...] = ("closed", "open", "half_open")


class BreakerPolicy(BaseModel):
    """When a release's circuit opens, and how it is tried again."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    failures: int = Field(default=5, ge=1, le=1000)
    """Failed calls of the model in a row, with one release, that open its circuit."""
    open_s: float = Field(default=10.0, gt=0, le=3600)
    """How long an open circuit lets nothing through; then it is half open."""
    probe_queries: int = Field(default=1, ge=1, le=256)
    """Queries a half-open circuit lets through at a time; the others of the batch end as `unavailable`."""


@dataclass(frozen=True)
class Circuit:
    """What is known about calls with one release; times are seconds of a monotonic clock."""

    state: CircuitState = "closed"
    failures: int = 0
    """Failed calls since the last one that succeeded."""
    opened_at: float = 0.0

    @property
    def is_untroubled(self) -> bool:
        """Closed, and the last call succeeded: its queries may share a call with other releases'."""
        return self == Circuit()


def before_call(policy: BreakerPolicy, circuit: Circuit, now: float) -> Circuit:
    """The circuit as it stands at `now`: an open one is half open once its time is over."""
    if circuit.state == "open" and now - circuit.opened_at >= policy.open_s:
        return Circuit("half_open", circuit.failures, circuit.opened_at)
    return circuit


def admitted(policy: BreakerPolicy, circuit: Circuit, waiting: int) -> int:
    """How many of `waiting` queries may be tried now."""
    if circuit.state == "closed":
        return waiting
    return min(policy.probe_queries, waiting) if circuit.state == "half_open" else 0


def after_call(policy: BreakerPolicy, circuit: Circuit, now: float, *, succeeded: bool) -> Circuit:
    """The circuit after one call: a success closes it, a failed probe or too many failures in a row open it."""
    if succeeded:
        return Circuit()
    failures = circuit.failures + 1
    if circuit.state == "half_open" or failures >= policy.failures:
        return Circuit("open", failures, now)
    return Circuit("closed", failures)


def retry_after_s(policy: BreakerPolicy, circuit: Circuit, now: float) -> float:
    """Seconds until an open circuit lets a probe through; 0 where one may go now."""
    return max(0.0, circuit.opened_at + policy.open_s - now) if circuit.state == "open" else 0.0
