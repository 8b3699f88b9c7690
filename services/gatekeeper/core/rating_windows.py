"""Ratings of one partition of `feedback` become closed windows: counts by release, and nothing about who rated what.

A window is cut by the time of the answer, never of the rating, and closes once ratings of it have had time to come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.event import Sha256
from schemas.gate_inputs import RatingCounts, RatingWindow


@dataclass(frozen=True)
class Rating:
    """One thumb under an answer that a release gave a user."""

    feedback_id: str
    query_id: str
    rater: str
    release: Sha256
    epoch: int
    unit: str
    """The sticky key of the user who was answered."""
    answered_at: float
    """Seconds."""
    is_down: bool


@dataclass(frozen=True)
class RatingScope:
    """Whose ratings count now: the two releases of a canary, since the epoch it began with."""

    releases: frozenset[Sha256]
    first_epoch: int


@dataclass
class _Window:
    by_query: dict[str, Rating] = field(default_factory=dict)
    """The last rating of each answer holds."""
    late: int = 0


class PartitionRatings:
    """The open windows of one partition. Single-threaded, no clock."""

    def __init__(self, partition: int, *, window_s: float, maturity_s: float) -> None:
        """`maturity_s`: how long after a window's end ratings of its answers are waited for."""
        self.partition = partition
        self._window_s, self._maturity_s = window_s, maturity_s
        self._scope: RatingScope | None = None
        self._begin()

    def _begin(self) -> None:
        self._windows: dict[tuple[int, int], _Window] = {}
        self._counted: set[tuple[Sha256, str]] = set()
        self._closed = -1
        self._late = 0
        self._first_offset: int | None = None

    def watch(self, scope: RatingScope | None) -> None:
        """Count for this canary from here on; another one, or none, begins anew."""
        if scope != self._scope:
            self._scope = scope
            self._begin()

    def rated(self, rating: Rating, offset: int) -> None:
        """Take one rating, in offset order; what belongs to no running canary is left out."""
        scope = self._scope
        if scope is None or rating.release not in scope.releases or rating.epoch < scope.first_epoch:
            return
        if self._first_offset is None:
            self._first_offset = offset
        index = math.floor(rating.answered_at / self._window_s)
        if index <= self._closed:
            self._late += 1
            return
        self._windows.setdefault((index, rating.epoch), _Window()).by_query[rating.query_id] = rating

    def retracted(self, feedback_id: str, rater: str) -> None:
        """A rater takes a rating back; one whose window is closed has counted."""
        for window in self._windows.values():
            for query_id, rating in list(window.by_query.items()):
                if rating.feedback_id == feedback_id and rating.rater == rater:
                    del window.by_query[query_id]

    def close(self, watermark_s: float) -> tuple[RatingWindow, ...]:
        """Windows whose ratings have matured at this time, oldest first; those without a rating are not told."""
        tallies = []
        for key in sorted(self._windows):
            if watermark_s < (key[0] + 1) * self._window_s + self._maturity_s:
                break
            tallies.append(self._tally(key, self._windows.pop(key)))
            self._closed = key[0] if not any(index == key[0] for index, _ in self._windows) else key[0] - 1
        return tuple(tally for tally in tallies if tally.counts)

    def restart_offset(self) -> int | None:
        """Where a successor must read on to know every key that has counted; None where nothing is held."""
        return self._first_offset

    def _tally(self, key: tuple[int, int], window: _Window) -> RatingWindow:
        late, self._late = self._late, 0
        counts: dict[Sha256, list[float]] = {}
        for (release, _), shares in sorted(self._shares(window).items()):
            counts.setdefault(release, []).append(math.fsum(shares) / len(shares))
        return RatingWindow(
            partition=self.partition,
            start=key[0] * self._window_s,
            end=(key[0] + 1) * self._window_s,
            epoch=key[1],
            counts=tuple(
                RatingCounts(release=release, rated=len(means), down=math.fsum(means))
                for release, means in sorted(counts.items())
            ),
            late=late,
        )

    def _shares(self, window: _Window) -> Mapping[tuple[Sha256, str], list[float]]:
        """By release and key: 1 for each thumb down, 0 for each up; a key counts in one window of a canary only."""
        shares: dict[tuple[Sha256, str], list[float]] = {}
        for rating in window.by_query.values():
            shares.setdefault((rating.release, rating.unit), []).append(float(rating.is_down))
        fresh = {key: values for key, values in shares.items() if key not in self._counted}
        self._counted.update(fresh)
        return fresh
