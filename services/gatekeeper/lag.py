"""How far a stream has been read: the time before which every record of a partition has been given out.

Windows are closed by this time. Were it taken from the clock, a stalled broker would look like silent workers,
and an outage of Kafka would roll back a healthy release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Fetched:
    """What the consumer knows of one partition."""

    position: int
    """The next offset it will hand out."""
    end: int
    """The offset after the last committed record, as of `at_ms`."""
    at_ms: int
    """When the broker last answered for this partition."""


class FetchedOf(Protocol):
    """The consumer's knowledge of one partition; None while there is none."""

    def __call__(self, topic: str, partition: int) -> Fetched | None: ...


@dataclass
class _Place:
    record_ms: int = 0
    handled: int = 0
    seen: tuple[int, int] | None = None
    watermark_ms: int = 0


class ReadMarks:
    """Watermarks of partitions of several topics; used by one event loop."""

    def __init__(self, fetched: FetchedOf, *, is_drained: Callable[[str], bool]) -> None:
        """`is_drained(topic)` says that nothing fetched of a topic still waits to be handled."""
        self._fetched, self._is_drained = fetched, is_drained
        self._places: dict[tuple[str, int], _Place] = {}

    def handled(self, topic: str, partition: int, *, timestamp_ms: int) -> None:
        """One record has been given out."""
        place = self._places.setdefault((topic, partition), _Place())
        place.handled += 1
        place.record_ms = max(place.record_ms, timestamp_ms)

    def watermark_ms(self, topic: str, partition: int) -> int:
        """Call it regularly: a partition counts as read to its end only where two looks in a row say so.

        Between two looks everything fetched at the first one has been handed out, so the broker's earlier answer
        is the time up to which nothing is missing. Until then it is the time of the last record handed out.
        """
        place = self._places.setdefault((topic, partition), _Place())
        fetched = self._fetched(topic, partition)
        is_at_end = fetched is not None and fetched.position >= fetched.end and self._is_drained(topic)
        place.watermark_ms = max(place.watermark_ms, place.record_ms)
        if fetched is None or not is_at_end:
            place.seen = None
        else:
            if place.seen is not None and place.seen[0] == place.handled:
                place.watermark_ms = max(place.watermark_ms, place.seen[1])
            place.seen = (place.handled, fetched.at_ms)
        return place.watermark_ms

    def drop(self, partitions: set[tuple[str, int]]) -> None:
        """Forget partitions that now belong to somebody else."""
        for key in partitions:
            self._places.pop(key, None)
