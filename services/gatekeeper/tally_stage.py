"""The stream stage that counts: rows of the partitions this process owns in, closed windows logged.

Scales by partition: any number of gatekeepers share the partitions, each logs the windows of its own, and a
window logged twice counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from schemas.assignments import AssignmentBatch
from schemas.outcomes import OutcomeBatch
from services.gatekeeper.core.tally import PartitionTally, ShareOf
from services.gatekeeper.gate_log import GateLog
from twinloop.bus.records import TopicPartition
from twinloop.statistics.windows import WindowPolicy


@dataclass(frozen=True)
class Resume:
    """Where a partition's tallies in `gate-inputs` end."""

    closed_until: float
    open_from: int


ResumeOf = Callable[[int], Resume]


class TallyStage:
    """The partitions owned now; used by one event loop. Its offsets are committed only after its tallies are logged."""

    def __init__(
        self,
        log: GateLog,
        policy: WindowPolicy,
        *,
        topics: tuple[str, str],
        share_of: ShareOf,
        resume_of: ResumeOf,
    ) -> None:
        """`topics` are the full names of `assignments` and `outcomes`."""
        self._log, self._policy = log, policy
        self._assignments, self._outcomes = topics
        self._share_of, self._resume_of = share_of, resume_of
        self._tallies: dict[int, PartitionTally] = {}
        self._committed: dict[TopicPartition, int] = {}

    def assigned(self, batch: AssignmentBatch, *, partition: int, offset: int) -> None:
        """Take one record of `assignments`."""
        self._of(partition).assigned(batch, offset)

    def answered(self, batch: OutcomeBatch, *, partition: int, offset: int) -> None:
        """Take one record of `outcomes`."""
        self._of(partition).answered(batch, offset)

    def close(self, partition: int, watermark_s: float) -> int:
        """Log the windows complete at `watermark_s`; returns how many."""
        closed = self._of(partition).close(watermark_s)
        self._log.write(*closed)
        return len(closed)

    def commitable(self) -> dict[TopicPartition, int]:
        """Offsets to commit once everything logged so far is flushed; only those that moved."""
        moved: dict[TopicPartition, int] = {}
        for partition, tally in self._tallies.items():
            offsets = tally.restart_offsets()
            for topic, offset in (
                (self._assignments, offsets.assignments),
                (self._outcomes, offsets.outcomes),
            ):
                place = TopicPartition(topic, partition)
                if offset is not None and offset > self._committed.get(place, -1):
                    moved[place] = offset
        return moved

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        """Kafka took these."""
        self._committed.update(offsets)

    def drop(self, partitions: set[int]) -> None:
        """Forget partitions that now belong to somebody else."""
        for partition in partitions:
            self._tallies.pop(partition, None)
            for topic in (self._assignments, self._outcomes):
                self._committed.pop(TopicPartition(topic, partition), None)

    def _of(self, partition: int) -> PartitionTally:
        tally = self._tallies.get(partition)
        if tally is None:
            resume = self._resume_of(partition)
            tally = self._tallies[partition] = PartitionTally(
                partition,
                self._policy,
                share_of=self._share_of,
                closed_until=resume.closed_until,
                open_from=resume.open_from,
            )
        return tally
