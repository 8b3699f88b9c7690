"""Which share of traffic a recorded epoch gave the shadow: what the split of keys is tested against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.decisions import Decision
from services.gatekeeper.event_file import EventLine

_BUCKETS = 10_000


@dataclass(frozen=True)
class Shares:
    """Basis points by recorded epoch."""

    by_epoch: dict[int, int]
    observed: frozenset[int] = frozenset()
    """Epochs whose buckets say nothing: their share is the one observed, so no split can be tested."""
    notes: tuple[str, ...] = ()

    def of(self, epoch: int) -> int:
        return self.by_epoch.get(epoch, 0)

    def has_buckets(self, epoch: int) -> bool:
        return epoch not in self.observed


@dataclass
class _Seen:
    active: list[int] = field(default_factory=list)
    shadow: list[int] = field(default_factory=list)


def recorded_shares(lines: Iterable[EventLine], steps: Sequence[int]) -> Shares:
    """The logged share of an epoch where the file holds its decision; else what its buckets show.

    A bucket below the share goes to the shadow, so the share is the smallest of `steps` above every shadow bucket.
    """
    logged: dict[int, int] = {}
    seen: dict[int, _Seen] = {}
    for line in lines:
        if isinstance(line.event, Decision):
            canary = line.event.state.canary
            logged[line.event.epoch] = canary.basis_points if canary else 0
        elif isinstance(line.event, AssignmentBatch):
            for row in line.event.rows:
                _note(seen, row)
    shares, observed, notes = dict(logged), set(), []
    for epoch, rows in sorted(seen.items()):
        if not rows.shadow:
            shares.setdefault(epoch, 0)
            continue
        share = logged.get(epoch) or _covering(max(rows.shadow), steps)
        if 2 * sum(bucket < share for bucket in rows.active) > len(rows.active):
            share = logged.get(epoch) or round(
                _BUCKETS * len(rows.shadow) / (len(rows.shadow) + len(rows.active))
            )
            observed.add(epoch)
            notes.append(
                f"epoch {epoch}: its buckets do not tell the arms apart; {share / 100:g} % is taken as intended"
            )
        shares[epoch] = max(1, min(share, _BUCKETS - 1))
    return Shares(shares, frozenset(observed), tuple(notes))


def _note(seen: dict[int, _Seen], row: AssignmentRow) -> None:
    if row.purpose == "user":
        rows = seen.setdefault(row.epoch, _Seen())
        (rows.active if row.arm == "active" else rows.shadow).append(row.bucket)


def _covering(bucket: int, steps: Sequence[int]) -> int:
    return next((step for step in sorted(steps) if step > bucket), bucket + 1)
