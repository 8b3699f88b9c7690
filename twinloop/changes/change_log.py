"""What readers know about changes: a fold of their topic, bounded in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from schemas.changes import ChangeProposed, ChangeReviewed, ChangeStatus
from twinloop.bus.records import Record
from twinloop.codec import decode

KEPT = 1_000
MAX_REVIEWS = 20
_TYPES: dict[bytes, type[ChangeProposed] | type[ChangeReviewed] | type[ChangeStatus]] = {
    event.type.encode(): event for event in (ChangeProposed, ChangeReviewed, ChangeStatus)
}
ChangeEvent = ChangeProposed | ChangeReviewed | ChangeStatus


@dataclass(frozen=True)
class KnownChange:
    """One proposed change so far."""

    proposal: ChangeProposed
    status: ChangeStatus | None = None
    """The last one; absent until the trainer has looked at it."""
    reviews: tuple[ChangeReviewed, ...] = ()
    """As they were published: only the trainer says which of them count."""


class ChangeLog:
    """Mutable; its owner locks it."""

    def __init__(self, keep: int = KEPT) -> None:
        self._keep = keep
        self._changes: OrderedDict[str, KnownChange] = OrderedDict()

    def take(self, event: ChangeEvent) -> None:
        """One event, in the order of the topic; the first proposal of an id holds."""
        if isinstance(event, ChangeProposed):
            self._changes.setdefault(event.id, KnownChange(event))
            while len(self._changes) > self._keep:
                self._changes.popitem(last=False)
            return
        known = self._changes.get(event.change)
        if known is None:
            return
        if isinstance(event, ChangeStatus):
            self._changes[event.change] = replace(known, status=event)
        elif event.nonce not in {review.nonce for review in known.reviews}:
            reviews = (*known.reviews, event)[-MAX_REVIEWS:]
            self._changes[event.change] = replace(known, reviews=reviews)

    def get(self, change: str) -> KnownChange | None:
        return self._changes.get(change)

    def newest_first(self) -> list[KnownChange]:
        return list(reversed(self._changes.values()))


def decode_change(record: Record) -> ChangeEvent:
    """Any event of the topic; raises InvalidEvent. A record that does not say what it is is taken for a proposal."""
    return decode(record, _TYPES.get(record.header("ce_type") or b"", ChangeProposed))
