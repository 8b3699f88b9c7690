"""What one closed window says: counts per arm and domain, and nothing about who asked what.

A tally is the only thing a judge sees. It adds up across partitions (`merge`) and travels as plain JSON
values. The unit is the sticky key: a key with m requests in a window contributes its mean, never m separate
outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .latency import Sparse, merge_sparse, sparse_from_json


@dataclass(frozen=True)
class ArmTally:
    """One arm in one window. Sums of unit means are real numbers between 0 and `units`."""

    queries: int = 0
    """Requests assigned to the arm."""
    units: int = 0
    """Units (sticky keys) among them."""
    errors: float = 0.0
    """Sum over units of the share that failed, timed out or has no outcome."""
    missing: int = 0
    """Requests without an outcome at their deadline (they are in `errors` too)."""
    answered: int = 0
    """Units with at least one answer: the denominator of latency and toxicity."""
    latency: Sparse = ()
    """Latency of answers; each answered unit weighs 1 in all. A failure is an error, never a latency."""
    latency_missing: float = 0.0
    """Share of answered units whose answers carry no usable latency."""
    toxic: float = 0.0
    """Sum over answered units of the mean toxic flag or score of labelled answers, missing labels as 0."""
    toxic_missing: float = 0.0
    """Sum over answered units of the share of answers without a label."""
    citations_required: int = 0
    citations_valid: int = 0
    new_keys: int = 0
    """Keys seen for the first time in this ramp step: the sample of the ratio check."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        data: dict[str, Any] = {name: getattr(self, name) for name in _SUMS}
        data["latency"] = [list(pair) for pair in self.latency]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArmTally:
        """The tally that `to_json` described."""
        return cls(**{**data, "latency": sparse_from_json(data["latency"])})


_SUMS = tuple(f.name for f in fields(ArmTally) if f.name != "latency")
EMPTY_ARM = ArmTally()


def merge_arms(left: ArmTally, right: ArmTally) -> ArmTally:
    """Sum of two arms over disjoint requests."""
    sums = {name: getattr(left, name) + getattr(right, name) for name in _SUMS}
    return ArmTally(**sums, latency=merge_sparse(left.latency, right.latency))


@dataclass(frozen=True)
class Arms:
    """Both arms of one scope (the whole traffic or one domain)."""

    active: ArmTally = EMPTY_ARM
    shadow: ArmTally = EMPTY_ARM

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"active": self.active.to_json(), "shadow": self.shadow.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Arms:
        """The arms that `to_json` described."""
        return cls(ArmTally.from_json(data["active"]), ArmTally.from_json(data["shadow"]))


def _merge_scopes(left: Arms, right: Arms) -> Arms:
    return Arms(merge_arms(left.active, right.active), merge_arms(left.shadow, right.shadow))


@dataclass(frozen=True)
class WindowTally:
    """One window [start, end) of assignment time (seconds), all decided under one routing epoch."""

    start: float
    end: float
    epoch: int = 0
    canary_bp: int = 0
    """Intended shadow share in basis points during the window."""
    total: Arms = field(default_factory=Arms)
    domains: Mapping[str, Arms] = field(default_factory=dict)
    fresh: Arms | None = None
    """The units whose key is seen for the first time in this ramp step; None when that is every unit.

    Two windows of one returning key are not independent: only its first may speak for a promotion.
    """
    late: int = 0
    """Rows that came after their window had closed; counted, not used."""
    duplicates: int = 0
    classifiers: tuple[str, ...] = ()
    """Every classifier behind the window's safety labels, sorted; empty where that was not recorded."""

    @property
    def is_empty(self) -> bool:
        return self.total.active.queries + self.total.shadow.queries == 0

    @property
    def independent(self) -> Arms:
        """Units that no earlier window of the ramp step has counted."""
        return self.total if self.fresh is None else self.fresh

    def to_json(self) -> dict[str, Any]:
        """Plain values; `fresh` is left out when it would repeat `total`."""
        fresh = {} if self.fresh is None else {"fresh": self.fresh.to_json()}
        named = {"classifiers": list(self.classifiers)} if self.classifiers else {}
        return {
            **fresh,
            **named,
            "start": self.start,
            "end": self.end,
            "epoch": self.epoch,
            "canary_bp": self.canary_bp,
            "total": self.total.to_json(),
            "domains": {name: self.domains[name].to_json() for name in sorted(self.domains)},
            "late": self.late,
            "duplicates": self.duplicates,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WindowTally:
        """The tally that `to_json` described."""
        scopes = {name: Arms.from_json(arms) for name, arms in data["domains"].items()}
        fresh = data.get("fresh")
        values = {
            **data,
            "total": Arms.from_json(data["total"]),
            "domains": scopes,
            "classifiers": tuple(data.get("classifiers", ())),
        }
        return cls(**{**values, "fresh": None if fresh is None else Arms.from_json(fresh)})


def merge(left: WindowTally, right: WindowTally) -> WindowTally:
    """Sum of two tallies of one epoch: partitions of a window, or neighbouring windows.

    Raises ValueError for tallies of different epochs or shares: ramp steps are never pooled.
    """
    if (left.epoch, left.canary_bp) != (right.epoch, right.canary_bp):
        raise ValueError(
            f"tallies of epoch {left.epoch} at {left.canary_bp} bp and epoch {right.epoch} at "
            f"{right.canary_bp} bp must not be pooled; judge them one after the other"
        )
    names = sorted({*left.domains, *right.domains})
    none = Arms()
    is_all_fresh = left.fresh is None and right.fresh is None
    return WindowTally(
        start=min(left.start, right.start),
        end=max(left.end, right.end),
        epoch=left.epoch,
        canary_bp=left.canary_bp,
        total=_merge_scopes(left.total, right.total),
        domains={n: _merge_scopes(left.domains.get(n, none), right.domains.get(n, none)) for n in names},
        fresh=None if is_all_fresh else _merge_scopes(left.independent, right.independent),
        late=left.late + right.late,
        duplicates=left.duplicates + right.duplicates,
        classifiers=tuple(sorted({*left.classifiers, *right.classifiers})),
    )


@dataclass(frozen=True)
class TallyMerger:
    """Waits until every partition has passed a window, then gives its sum; the first tally per partition
    counts.

    Windows leave in the order (start, epoch). An empty tally of a partition is its heartbeat: nothing before
    its end will come from there.
    """

    partitions: tuple[int, ...]
    progress: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    waiting: Mapping[tuple[float, int], tuple[tuple[int, WindowTally], ...]] = field(default_factory=dict)

    @property
    def reached(self) -> tuple[float, int]:
        """Every window up to this (start, epoch) has left."""
        return min(self.progress.get(known, _NOWHERE) for known in self.partitions)

    def offer(self, partition: int, tally: WindowTally) -> tuple[TallyMerger, tuple[WindowTally, ...]]:
        """The merger after one partition's tally, and the windows that are whole now.

        Raises ValueError for a partition that was not announced.
        """
        if partition not in self.partitions:
            raise ValueError(f"tally of partition {partition}, but only {self.partitions} were announced")
        position = (tally.start, tally.epoch)
        passed = self.progress.get(partition, _NOWHERE)
        reached = (tally.end, -1) if tally.is_empty else position
        if reached <= passed:
            return self, ()
        waiting = dict(self.waiting)
        has_news = not tally.is_empty or tally.late or tally.duplicates
        if has_news:
            waiting[position] = (*waiting.get(position, ()), (partition, tally))
        after = TallyMerger(self.partitions, {**self.progress, partition: reached}, waiting)
        ready = sorted(key for key in waiting if key <= after.reached)
        windows = tuple(_whole(waiting.pop(key)) for key in ready)
        return after, windows

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "partitions": list(self.partitions),
            "progress": [[known, *reached] for known, reached in sorted(self.progress.items())],
            "waiting": [
                [part, tally.to_json()] for key in sorted(self.waiting) for part, tally in self.waiting[key]
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TallyMerger:
        """The merger that `to_json` described."""
        waiting: dict[tuple[float, int], tuple[tuple[int, WindowTally], ...]] = {}
        for part, values in data["waiting"]:
            tally = WindowTally.from_json(values)
            position = (tally.start, tally.epoch)
            waiting[position] = (*waiting.get(position, ()), (part, tally))
        progress = {known: (time, epoch) for known, time, epoch in data["progress"]}
        return cls(tuple(data["partitions"]), progress, waiting)


_NOWHERE = (float("-inf"), -1)


def _whole(parts: tuple[tuple[int, WindowTally], ...]) -> WindowTally:
    ordered = [tally for _, tally in sorted(parts, key=lambda part: part[0])]
    whole = ordered[0]
    for tally in ordered[1:]:
        whole = merge(whole, tally)
    return whole
