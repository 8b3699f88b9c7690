"""Assignment-time windows of one partition: who was assigned, joined with what became of it.

A window closes by assignment order, never by the order in which answers arrive: when every query assigned in
it has an outcome, or its deadline has passed. Judging by arrival would pass a hung candidate, because its
failures are still in flight. Windows close oldest first; the same rows give the same tallies in whatever
order the two topics were interleaved, because sums are exact (`math.fsum`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from twinloop.errors import ConfigError

from .query_rows import ArmName, Assignment, Outcome, tally_arm, tally_copies
from .tally import Arms, ArmTally, WindowTally

__all__ = [
    "Assignment",
    "Outcome",
    "PartitionWindows",
    "RestartOffsets",
    "WindowPolicy",
    "tally_arm",
    "tally_copies",
]

Key = tuple[int, int]
"""(window index, epoch)."""


class CountArm(Protocol):
    """Counts of one arm from (unit, outcome) pairs."""

    def __call__(self, rows: Iterable[tuple[str, Outcome | None]], *, new_keys: int = 0) -> ArmTally: ...


@dataclass(frozen=True)
class WindowPolicy:
    """How windows are cut and when they close; all times in seconds."""

    seconds: float = 1.0
    """Length of a window, by the time queries were assigned."""
    lateness_s: float = 1.0
    """How long after a window's end assignments to it may still appear."""
    grace_s: float = 5.0
    """How long after its deadline a query's outcome may still appear."""
    waits_for_labels: bool = False
    """Whether an outcome without a safety label keeps its window open until the deadline."""
    orphan_ttl_s: float = 60.0
    """How long an outcome waits for its assignment (the two topics are not read in step)."""

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ConfigError(
                "window policy: seconds must be positive; correct the gatekeeper's configuration"
            )
        for name in ("lateness_s", "grace_s", "orphan_ttl_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"window policy: {name} must not be negative; correct the gatekeeper's configuration"
                )


@dataclass(frozen=True)
class RestartOffsets:
    """Where to read on from so that every open window is rebuilt whole; None means from the committed end."""

    assignments: int | None
    outcomes: int | None


@dataclass
class _Window:
    first_assignment: int
    first_outcome: int | None = None
    canary_bp: int = 0
    rows: dict[str, Assignment] = field(default_factory=dict)
    unsettled: dict[str, float] = field(default_factory=dict)
    """Query id to the time from which it is not waited for."""


class PartitionWindows:
    """The open windows of one partition. Single-threaded; knows no clock and no topic."""

    def __init__(
        self,
        policy: WindowPolicy,
        *,
        closed_until: float = 0.0,
        open_from: int = 0,
        count: CountArm = tally_arm,
    ) -> None:
        """Start empty, or go on after a restart.

        `closed_until` is the end of the last window that was published; rows before it whose offset is below
        `open_from` only refill the set of known keys, later ones are counted as late. `count` makes an arm's
        counts of its rows: `tally_arm`, or `tally_copies` for mirrored traffic.
        """
        self._policy, self._count = policy, count
        self._closed = math.floor(closed_until / policy.seconds + 1e-9)
        self._open_from = open_from
        self._windows: dict[Key, _Window] = {}
        self._where: dict[str, Key] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._orphans: dict[str, tuple[int, Outcome]] = {}
        self._seen: dict[int, set[str]] = {}
        self._seen_from: dict[int, int] = {}
        """Per epoch the keys already counted, and the lowest offset that names them all."""
        self._next: list[int | None] = [None, None]
        self._late = 0
        self._duplicates = 0
        self._last_epoch: tuple[int, int] = (0, 0)

    @property
    def closed_until(self) -> float:
        """End of the last closed window; nothing before it will be counted any more."""
        return self._closed * self._policy.seconds

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open: a successor would miss nothing that was read so far."""
        return not self._windows and not self._orphans

    def assign(self, row: Assignment, offset: int) -> None:
        """Take one assignment row, in offset order."""
        self._next[0] = offset + 1
        index = math.floor(row.at / self._policy.seconds)
        key = (index, row.epoch)
        if index < self._closed:
            if offset < self._open_from:
                self._remember(row, offset)
            else:
                self._late += 1
            return
        held = self._where.get(row.query_id)
        if held is not None:
            earlier = self._windows[held].rows[row.query_id]
            if row.hops <= earlier.hops:
                self._duplicates += 1
                return
            self._drop(held, row.query_id)
        window = self._windows.setdefault(key, _Window(offset, canary_bp=row.canary_bp))
        window.first_assignment = min(window.first_assignment, offset)
        window.rows[row.query_id] = row
        window.unsettled[row.query_id] = row.deadline + self._policy.grace_s
        self._where[row.query_id] = key
        orphan = self._orphans.pop(row.query_id, None)
        if orphan is not None:
            self._join(orphan[1], orphan[0])
        elif row.query_id in self._outcomes:
            self._settle(key, row.query_id)

    def outcome(self, row: Outcome, offset: int) -> None:
        """Take one outcome row, in offset order; it may come before its assignment."""
        self._next[1] = offset + 1
        if row.query_id in self._where:
            self._join(row, offset)
        elif row.query_id in self._orphans:
            self._duplicates += 1
        else:
            self._orphans[row.query_id] = (offset, row)

    def close(self, watermark: float) -> tuple[WindowTally, ...]:
        """Windows that are complete at `watermark`, oldest first, then at most one empty tally as a
        heartbeat.

        `watermark` is a time (seconds) before which every assignment and outcome record has been given to
        this object; while a reader lags, that is the time of the oldest record it has not read.
        """
        tallies: list[WindowTally] = []
        for key in sorted(self._windows):
            if not self._is_complete(key, watermark):
                break
            tallies.append(self._tally(key))
            self._forget(key)
        self._expire_orphans(watermark)
        self._advance_idle(watermark, tallies)
        return tuple(tallies)

    def restart_offsets(self) -> RestartOffsets:
        """The lowest offsets that rebuild open windows and, for the split test, the keys already counted."""
        starts = [window.first_assignment for window in self._windows.values()]
        starts += self._seen_from.values()
        outcomes = [w.first_outcome for w in self._windows.values() if w.first_outcome is not None]
        outcomes += [offset for offset, _ in self._orphans.values()]
        return RestartOffsets(min(starts, default=self._next[0]), min(outcomes, default=self._next[1]))

    def open_from(self) -> int | None:
        """Lowest assignment offset of a window that is still open: pass it on as `open_from` at a restart."""
        return min((w.first_assignment for w in self._windows.values()), default=self._next[0])

    def _join(self, row: Outcome, offset: int) -> None:
        key = self._where[row.query_id]
        held = self._outcomes.get(row.query_id)
        if held is not None and not (held.ok and held.toxic is None and row.toxic is not None):
            self._duplicates += 1
            return
        self._outcomes[row.query_id] = row
        window = self._windows[key]
        window.first_outcome = offset if window.first_outcome is None else min(window.first_outcome, offset)
        self._settle(key, row.query_id)

    def _settle(self, key: Key, query_id: str) -> None:
        outcome = self._outcomes[query_id]
        if not (self._policy.waits_for_labels and outcome.ok and outcome.toxic is None):
            self._windows[key].unsettled.pop(query_id, None)

    def _drop(self, key: Key, query_id: str) -> None:
        window = self._windows[key]
        del window.rows[query_id], self._where[query_id]
        window.unsettled.pop(query_id, None)
        if not window.rows:
            del self._windows[key]

    def _is_complete(self, key: Key, watermark: float) -> bool:
        end = (key[0] + 1) * self._policy.seconds
        unsettled = self._windows[key].unsettled
        return watermark >= end + self._policy.lateness_s and all(watermark >= t for t in unsettled.values())

    def _forget(self, key: Key) -> None:
        for query_id in self._windows.pop(key).rows:
            del self._where[query_id]
            self._outcomes.pop(query_id, None)
        if not any(index == key[0] for index, _ in self._windows):
            self._closed = max(self._closed, key[0] + 1)

    def _expire_orphans(self, watermark: float) -> None:
        limit = watermark - self._policy.orphan_ttl_s
        for query_id in [q for q, (_, row) in self._orphans.items() if row.at < limit]:
            del self._orphans[query_id]
            self._late += 1

    def _advance_idle(self, watermark: float, tallies: list[WindowTally]) -> None:
        if self._windows:
            return
        index = math.floor((watermark - self._policy.lateness_s) / self._policy.seconds)
        if index <= self._closed:
            return
        epoch, canary_bp = self._last_epoch
        late, duplicates = self._take_counters()
        tallies.append(
            WindowTally(
                start=self.closed_until,
                end=index * self._policy.seconds,
                epoch=epoch,
                canary_bp=canary_bp,
                late=late,
                duplicates=duplicates,
            )
        )
        self._closed = index

    def _take_counters(self) -> tuple[int, int]:
        counters = (self._late, self._duplicates)
        self._late = self._duplicates = 0
        return counters

    def _remember(self, row: Assignment, offset: int) -> bool:
        """Note a key of a ramp step; True when it is new. Only the two latest epochs are kept."""
        if not 0 < row.canary_bp < 10_000:
            return False
        keys = self._seen.setdefault(row.epoch, set())
        self._seen_from[row.epoch] = min(offset, self._seen_from.get(row.epoch, offset))
        for epoch in sorted(self._seen)[:-2]:
            del self._seen[epoch], self._seen_from[epoch]
        if row.unit in keys:
            return False
        keys.add(row.unit)
        return True

    def _forget_keys(self, *, before: int) -> None:
        """A window without a canary ends the ramp steps before it."""
        for epoch in [known for known in self._seen if known < before]:
            del self._seen[epoch], self._seen_from[epoch]

    def _tally(self, key: Key) -> WindowTally:
        window = self._windows[key]
        rows = sorted(window.rows.values(), key=lambda row: (row.unit, row.query_id))
        is_canary = 0 < window.canary_bp < 10_000
        if not is_canary:
            self._forget_keys(before=key[1])
        new_units = {row.unit: row.arm for row in rows if self._remember(row, window.first_assignment)}
        arms = list(new_units.values())
        new: dict[ArmName, int] = {"active": arms.count("active"), "shadow": arms.count("shadow")}
        first = [row for row in rows if row.unit in new_units] if is_canary else rows
        self._last_epoch = (key[1], window.canary_bp)
        late, duplicates = self._take_counters()
        domains = {
            name: self._arms([r for r in rows if r.domain == name])
            for name in sorted({r.domain for r in rows})
        }
        return WindowTally(
            start=key[0] * self._policy.seconds,
            end=(key[0] + 1) * self._policy.seconds,
            epoch=key[1],
            canary_bp=window.canary_bp,
            total=self._arms(rows, new),
            fresh=None if len(first) == len(rows) else self._arms(first, new),
            domains=domains,
            late=late,
            duplicates=duplicates,
            classifiers=self._classifiers(rows),
        )

    def _classifiers(self, rows: list[Assignment]) -> tuple[str, ...]:
        found = (self._outcomes.get(row.query_id) for row in rows)
        return tuple(
            sorted({o.classifier for o in found if o is not None and o.toxic is not None and o.classifier})
        )

    def _arms(self, rows: list[Assignment], new_keys: Mapping[ArmName, int] | None = None) -> Arms:
        new = new_keys or {"active": 0, "shadow": 0}
        names: tuple[ArmName, ArmName] = ("active", "shadow")
        active, shadow = (
            self._count(
                ((r.unit, self._outcomes.get(r.query_id)) for r in rows if r.arm == name), new_keys=new[name]
            )
            for name in names
        )
        return Arms(active, shadow)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` of it goes on as if nothing had happened."""
        return {
            "closed": self._closed,
            "open_from": self._open_from,
            "next": list(self._next),
            "late": self._late,
            "duplicates": self._duplicates,
            "last_epoch": list(self._last_epoch),
            "windows": [
                [
                    *key,
                    window.first_assignment,
                    window.first_outcome,
                    window.canary_bp,
                    [asdict(row) for row in window.rows.values()],
                    dict(window.unsettled),
                ]
                for key, window in sorted(self._windows.items())
            ],
            "outcomes": [asdict(row) for row in self._outcomes.values()],
            "orphans": [[offset, asdict(row)] for offset, row in self._orphans.values()],
            "seen": [
                [epoch, self._seen_from[epoch], sorted(keys)] for epoch, keys in sorted(self._seen.items())
            ],
        }

    @classmethod
    def from_json(cls, policy: WindowPolicy, data: Mapping[str, Any]) -> PartitionWindows:
        """The windows that `to_json` described."""
        self = cls(policy)
        self._closed, self._open_from = data["closed"], data["open_from"]
        self._next = list(data["next"])
        self._late, self._duplicates = data["late"], data["duplicates"]
        self._last_epoch = (data["last_epoch"][0], data["last_epoch"][1])
        for index, epoch, assigned, joined, canary_bp, rows, unsettled in data["windows"]:
            window = _Window(assigned, joined, canary_bp, unsettled=dict(unsettled))
            for row in (Assignment(**values) for values in rows):
                window.rows[row.query_id] = row
                self._where[row.query_id] = (index, epoch)
            self._windows[index, epoch] = window
        self._outcomes = {values["query_id"]: Outcome(**values) for values in data["outcomes"]}
        self._orphans = {
            values["query_id"]: (offset, Outcome(**values)) for offset, values in data["orphans"]
        }
        self._seen = {epoch: set(keys) for epoch, _, keys in data["seen"]}
        self._seen_from = {epoch: offset for epoch, offset, _ in data["seen"]}
        return self
