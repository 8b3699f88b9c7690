"""Who is turned away while a worker cannot keep up: low priority first, and only when the backlog lasts.

A backlog that shrinks, such as after a broker's restart, is worked off; one that lasts is cut to a bounded wait,
because a queue that stands adds its length to every answer (CoDel, Nichols and Jacobson 2012, tells the two apart as
well). Turning away must be quicker than asking, so such a backlog is read in larger batches, of which the model gets
what it can answer in one pass: the newest of the highest priority (adaptive LIFO, Maurer, "Fail at Scale", ACM Queue
2015), as those who asked last still wait for their answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.event import Priority
from services.inference.core.routed_query import RoutedQuery


class OverloadPolicy(BaseModel):
    """When a waiting query is shed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after_ms: int = Field(default=1500, ge=0, le=600_000)
    """A backlog that does not shrink is borne for so long before a worker counts as overloaded; shorter than any
    deadline worth serving."""
    work_off_ms: int = Field(default=10_000, ge=0, le=600_000)
    """One that shrinks may be worked off for so long: what a short stall left behind is answered late, not refused."""
    low_share: float = Field(default=0.02, gt=0, le=1)
    """Under overload low priority, and mirrored copies, are shed once they have waited this share of their deadline."""
    normal_share: float = Field(default=0.05, gt=0, le=1)
    """Under overload normal priority is shed once it has waited this share of its deadline."""
    high_share: float = Field(default=0.15, gt=0, le=1)
    """Under overload high priority is shed once it has waited this share of its deadline."""
    calm_ms: int = Field(default=1000, ge=0, le=600_000)
    """An overload is over once one forward pass has been enough for everybody for so long; ended at the first such
    pass, a flood would have to wait for `after_ms` again and again."""
    drain_max: int = Field(default=2000, ge=1, le=10_000)
    """Under overload so many queries are read at once, of which one forward pass is answered and the rest shed:
    enough to reach the newest, or the worker stays among those that have waited too long."""

    @model_validator(mode="after")
    def _low_goes_first(self) -> OverloadPolicy:
        if not self.low_share <= self.normal_share <= self.high_share:
            raise ValueError("low_share <= normal_share <= high_share: low priority is shed first")
        return self


@dataclass(frozen=True)
class Backlog:
    """Full batches without a break: when they began, and how few queries were ever left waiting behind one."""

    began_s: float
    fewest: int
    fewest_at_s: float

    @classmethod
    def begun(cls, waiting: int, now_s: float) -> Backlog:
        return cls(now_s, waiting, now_s)

    def seen(self, waiting: int, now_s: float) -> Backlog:
        """This backlog with `waiting` queries behind another full batch."""
        return replace(self, fewest=waiting, fewest_at_s=now_s) if waiting < self.fewest else self

    def lasting_ms(self, policy: OverloadPolicy, now_s: float) -> int:
        """For how long it has not shrunk; all of its time once it has been worked off for `work_off_ms`."""
        whole = int(1000 * (now_s - self.began_s))
        return whole if whole >= policy.work_off_ms else int(1000 * (now_s - self.fewest_at_s))


@dataclass(frozen=True)
class Load:
    """What a worker has seen of its load: a backlog that may become an overload, and the overload until it is over."""

    backlog: Backlog | None = None
    crowded_at_s: float | None = None
    """When one pass was last not enough for everybody read; None while there is no overload."""

    @property
    def is_overload(self) -> bool:
        """Whether more is read than can be answered, and the rest shed."""
        return self.crowded_at_s is not None

    def seen(self, policy: OverloadPolicy, *, polled: int, one_pass: int, waiting: int, now_s: float) -> Load:
        """This load after a poll that brought `polled` queries and left `waiting` behind them."""
        if self.crowded_at_s is not None:
            if polled > one_pass:
                return Load(crowded_at_s=now_s)
            return Load() if 1000 * (now_s - self.crowded_at_s) >= policy.calm_ms else self
        if polled < one_pass:  # nothing waits behind a batch that is not full
            return Load()
        backlog = Backlog.begun(waiting, now_s) if self.backlog is None else self.backlog.seen(waiting, now_s)
        if backlog.lasting_ms(policy, now_s) >= policy.after_ms:
            return Load(crowded_at_s=now_s)
        return Load(backlog)


def is_shed(policy: OverloadPolicy, routed: RoutedQuery, *, now_ms: int) -> bool:
    """Whether a query has waited too long to be answered under overload.

    Who asked with a long deadline may wait long. QA probes are never shed: a release must not fail its examination
    because users are many.
    """
    purpose, priority = routed.stamp.purpose, routed.query.priority
    if purpose == "qa":
        return False
    if purpose == "mirror" or priority == "low":
        share = policy.low_share
    else:
        share = policy.high_share if priority == "high" else policy.normal_share
    return now_ms - routed.query.asked_at >= share * routed.query.deadline_ms


def most_urgent(waiting: Sequence[RoutedQuery], room: int) -> tuple[list[RoutedQuery], list[RoutedQuery]]:
    """Those to answer, at most `room`, and those there is no room for; both in the order given.

    QA probes first, then by priority, of equals the newest.
    """
    if len(waiting) <= room:
        return list(waiting), []
    ranked = sorted(range(len(waiting)), key=lambda row: _rank(waiting[row]))
    chosen = set(ranked[:room])
    return (
        [routed for row, routed in enumerate(waiting) if row in chosen],
        [routed for row, routed in enumerate(waiting) if row not in chosen],
    )


def _rank(routed: RoutedQuery) -> tuple[int, int]:
    purpose = routed.stamp.purpose
    rank = 0 if purpose == "qa" else 4 if purpose == "mirror" else _RANKS[routed.query.priority]
    return rank, -routed.query.asked_at


_RANKS: dict[Priority, int] = {"high": 1, "normal": 2, "low": 3}
