"""The stream stage that counts ratings: the partitions of `feedback` this process owns in, matured windows logged."""

from __future__ import annotations

from collections.abc import Callable

from schemas.feedback import Feedback
from schemas.gate_inputs import FeedbackCounts
from services.gatekeeper.core.policy import RatingsPolicy
from services.gatekeeper.core.rating_windows import PartitionRatings, RatingScope
from services.gatekeeper.gate_log import GateLog
from services.gatekeeper.intake import rating_of
from twinloop.bus.records import TopicPartition
from twinloop.signing import KeyRing

ScopeOf = Callable[[], RatingScope | None]


class RatingStage:
    """Ratings of a running canary; used by one event loop. While none runs, feedback is read and nothing is kept."""

    def __init__(
        self, log: GateLog, policy: RatingsPolicy, ring: KeyRing, *, topic: str, scope_of: ScopeOf
    ) -> None:
        """`topic` is the full name of `feedback`."""
        self._log, self._policy, self._ring = log, policy, ring
        self._topic, self._scope_of = topic, scope_of
        self._partitions: dict[int, PartitionRatings] = {}
        self._read: dict[int, int] = {}
        """By partition, the offset after the last record read."""
        self._committed: dict[int, int] = {}

    def given(self, feedback: Feedback, *, partition: int, offset: int) -> None:
        """Take one record of `feedback`."""
        self._read[partition] = offset + 1
        ratings = self._of(partition)
        if feedback.retracts is not None:
            ratings.retracted(feedback.retracts, feedback.rater)
        rating = rating_of(feedback, self._ring)
        if rating is not None:
            ratings.rated(rating, offset)

    def close(self, partition: int, watermark_s: float) -> int:
        """Log the windows whose ratings have matured; returns how many."""
        closed = self._of(partition).close(watermark_s)
        self._log.write(*(FeedbackCounts(counts={}, ratings=window) for window in closed))
        return len(closed)

    def commitable(self) -> dict[TopicPartition, int]:
        """Offsets to commit once everything logged so far is flushed: never past a rating of the running canary."""
        moved: dict[TopicPartition, int] = {}
        for partition, read in self._read.items():
            held = self._of(partition).restart_offset()
            offset = read if held is None else min(read, held)
            if offset > self._committed.get(partition, -1):
                moved[TopicPartition(self._topic, partition)] = offset
        return moved

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        """Kafka took these."""
        self._committed.update({place.partition: offset for place, offset in offsets.items()})

    def drop(self, partitions: set[int]) -> None:
        """Forget partitions that now belong to somebody else."""
        for partition in partitions:
            for kept in (self._partitions, self._read, self._committed):
                kept.pop(partition, None)

    def _of(self, partition: int) -> PartitionRatings:
        if partition not in self._partitions:
            self._partitions[partition] = PartitionRatings(
                partition, window_s=self._policy.window_s, maturity_s=self._policy.maturity_s
            )
        ratings = self._partitions[partition]
        ratings.watch(self._scope_of())
        return ratings
