"""The stream stage that counts: rows of the partitions this process owns in, closed windows logged.

Scales by partition: any number of gatekeepers share the partitions, each logs the windows of its own, and a
window logged twice counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from schemas.assignments import AssignmentBatch
from schemas.outcomes import OutcomeBatch
from services.gatekeeper.core.tally import PartitionCopies, PartitionTally, ShareOf
from services.gatekeeper.gate_log import GateLog
from twinloop.bus.records import TopicPartition
from twinloop.statistics.windows import WindowPolicy


@dataclass(frozen=True)
class Resume:
    """Where a partition's tallies in `gate-inputs` end."""

    closed_until: float
    open_from: int
    copies_until: float = 0.0
    """The same for windows of mirrored copies."""


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
        is_mirroring: Callable[[], bool] = lambda: False,
    ) -> None:
        """`topics` are the full names of `assignments` and `outcomes`; `is_mirroring`: whether copies are sent now."""
        self._log, self._policy = log, policy
        self._assignments, self._outcomes = topics
        self._share_of, self._resume_of = share_of, resume_of
        self._is_mirroring = is_mirroring
        self._tallies: dict[int, PartitionTally] = {}
        self._copies: dict[int, PartitionCopies] = {}
        self._committed: dict[TopicPartition, int] = {}

    def assigned(self, batch: AssignmentBatch, *, partition: int, offset: int) -> None:
        """Take one record of `assignments`."""
        self._of(partition).assigned(batch, offset)
        copies = self._copies_of(partition)
        if copies is not None:
            copies.assigned(batch, offset)

    def answered(self, batch: OutcomeBatch, *, partition: int, offset: int) -> None:
        """Take one record of `outcomes`."""
        self._of(partition).answered(batch, offset)
        copies = self._copies_of(partition)
        if copies is not None:
            copies.answered(batch, offset)

    def close(self, partition: int, watermark_s: float) -> int:
        """Log the windows complete at `watermark_s`; returns how many."""
        closed = self._of(partition).close(watermark_s)
        self._log.write(*closed)
        copies = self._copies_of(partition)
        if copies is None:
            return len(closed)
        of_copies = copies.close(watermark_s)
        self._log.write(*of_copies)
        return len(closed) + len(of_copies)

    def commitable(self) -> dict[TopicPartition, int]:
        """Offsets to commit once everything logged so far is flushed; only those that moved."""
        moved: dict[TopicPartition, int] = {}
        for partition, tally in self._tallies.items():
            for topic, offset in self._restart_offsets(partition, tally).items():
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
            self._copies.pop(partition, None)
            for topic in (self._assignments, self._outcomes):
                self._committed.pop(TopicPartition(topic, partition), None)

    def _restart_offsets(self, partition: int, tally: PartitionTally) -> dict[str, int | None]:
        """By topic, the lowest offset that an open window of users or of copies needs."""
        needed = [tally.restart_offsets()]
        if partition in self._copies:
            needed.append(self._copies[partition].restart_offsets())
        return {
            self._assignments: _least(each.assignments for each in needed),
            self._outcomes: _least(each.outcomes for each in needed),
        }

    def _copies_of(self, partition: int) -> PartitionCopies | None:
        """The copies' windows of a partition while copies are sent; those still open when that ends are dropped."""
        if not self._is_mirroring():
            self._copies.clear()
            return None
        if partition not in self._copies:
            self._copies[partition] = PartitionCopies(
                partition, self._policy, closed_until=self._resume_of(partition).copies_until
            )
        return self._copies[partition]

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


def _least(offsets: Iterable[int | None]) -> int | None:
    return min((offset for offset in offsets if offset is not None), default=None)
