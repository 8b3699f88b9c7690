"""The tally stage of one partition: assignment and outcome rows in, closed windows out."""

from __future__ import annotations

from collections.abc import Callable

from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.gate_inputs import Tally, WindowCounts
from schemas.outcomes import OutcomeBatch, OutcomeRow
from twinloop.statistics.windows import (
    Assignment,
    Outcome,
    PartitionWindows,
    RestartOffsets,
    WindowPolicy,
    tally_copies,
)

ShareOf = Callable[[int], int]
"""Canary basis points of a routing epoch; 0 where it had no canary."""


class PartitionTally:
    """The open windows of one origin partition; users' queries only. Single-threaded, no clock."""

    def __init__(
        self,
        partition: int,
        policy: WindowPolicy,
        *,
        share_of: ShareOf,
        closed_until: float = 0.0,
        open_from: int = 0,
    ) -> None:
        """Start empty, or go on after the last window that was logged (`closed_until`, in seconds)."""
        self.partition = partition
        self._share_of = share_of
        self._windows = PartitionWindows(policy, closed_until=closed_until, open_from=open_from)
        self._left_out: set[str] = set()

    def assigned(self, batch: AssignmentBatch, offset: int) -> None:
        """Take one record of `assignments`, in offset order."""
        for row in batch.rows:
            if row.purpose != "user":
                continue
            share = self._share_of(row.epoch)
            if _is_opted_out(row, share):
                self._left_out.add(row.id)
            else:
                self._windows.assign(_assignment(row, share), offset)

    def answered(self, batch: OutcomeBatch, offset: int) -> None:
        """Take one record of `outcomes`, in offset order."""
        for row in batch.rows:
            if row.purpose != "user":
                continue
            if row.id in self._left_out:
                self._left_out.discard(row.id)
            else:
                self._windows.outcome(_outcome(row, batch.toxicity_classifier), offset)

    def close(self, watermark_s: float) -> tuple[Tally, ...]:
        """Windows complete at this time, oldest first; an idle partition gives a heartbeat."""
        closed = self._windows.close(watermark_s)
        open_from = self._windows.open_from()
        return tuple(
            Tally(
                partition=self.partition,
                window=WindowCounts.model_validate(window.to_json()),
                open_from=-1 if open_from is None else open_from,
            )
            for window in closed
        )

    def restart_offsets(self) -> RestartOffsets:
        """Where a successor must read on to rebuild every open window whole."""
        return self._windows.restart_offsets()


class PartitionCopies:
    """The open windows of one origin partition's mirrored copies; they never delay those of users' queries."""

    def __init__(self, partition: int, policy: WindowPolicy, *, closed_until: float = 0.0) -> None:
        """Start empty, or go on after the last window that was logged (`closed_until`, in seconds)."""
        self.partition = partition
        self._windows = PartitionWindows(policy, closed_until=closed_until, count=tally_copies)

    def assigned(self, batch: AssignmentBatch, offset: int) -> None:
        """Take one record of `assignments`, in offset order."""
        for row in batch.rows:
            if row.purpose == "mirror":
                self._windows.assign(_assignment(row, 0), offset)

    def answered(self, batch: OutcomeBatch, offset: int) -> None:
        """Take one record of `outcomes`, in offset order."""
        for row in batch.rows:
            if row.purpose == "mirror":
                self._windows.outcome(_outcome(row, batch.toxicity_classifier), offset)

    def close(self, watermark_s: float) -> tuple[Tally, ...]:
        """Windows complete at this time, oldest first; a partition without copies gives a heartbeat."""
        return tuple(
            Tally(
                partition=self.partition,
                window=WindowCounts.model_validate(window.to_json()),
                purpose="mirror",
            )
            for window in self._windows.close(watermark_s)
        )

    def restart_offsets(self) -> RestartOffsets:
        """Where a successor must read on to rebuild every open window whole; anywhere while none is open."""
        return RestartOffsets(None, None) if self._windows.is_idle else self._windows.restart_offsets()


def _is_opted_out(row: AssignmentRow, share: int) -> bool:
    """The hash would have sent it to the shadow, but it stayed: its producer asked for that."""
    return row.arm == "active" and row.bucket < share


def _assignment(row: AssignmentRow, share: int) -> Assignment:
    return Assignment(
        query_id=row.id,
        unit=row.unit,
        arm=row.arm,
        domain=row.domain,
        epoch=row.epoch,
        canary_bp=share,
        at=row.assigned_at / 1000,
        deadline=row.deadline_at / 1000,
        hops=row.hops,
    )


def _outcome(row: OutcomeRow, classifier: str) -> Outcome:
    return Outcome(
        query_id=row.id,
        ok=row.error is None,
        at=row.answered_at / 1000,
        latency_ms=row.latency_ms,
        toxic=None if row.toxic is None else float(row.toxic),
        citation_required=row.citation in ("valid", "invalid", "missing"),
        citation_valid=row.citation == "valid",
        classifier=classifier or None,
        is_turned_away=row.error == "shed",
    )
