"""What the trainer tells, as records: ids that depend on content alone, so that telling it twice says it once."""

from __future__ import annotations

from schemas.changes import ChangeStatus
from schemas.feedback import FeedbackStatus, QuarantinedFeedback
from schemas.releases import ReleaseProposed
from services.trainer.core.effects import Effect
from twinloop.bus.dead_letter import dead_letter
from twinloop.bus.records import Outgoing, Record
from twinloop.canonical import digest_of
from twinloop.codec import encode
from twinloop.topics import TopicCatalogue


class Publisher:
    """Turns effects into records; sends nothing itself."""

    def __init__(self, topics: TopicCatalogue, *, source: str) -> None:
        self._topics = topics
        self._source = source

    def effect(self, effect: Effect) -> Outgoing:
        """A status, a quarantined feedback or an audit entry."""
        topic, key = _place_of(effect)
        value, headers = encode(effect, source=self._source, event_id=digest_of(effect)[:32], at_ms=effect.at)
        return Outgoing(
            topic=self._topics.name(topic),
            key=key.encode(),
            value=value,
            headers=headers,
            partition=0 if topic in ("changes", "audit") else None,
        )

    def proposal(self, proposed: ReleaseProposed) -> Outgoing:
        """A proposed release."""
        value, headers = encode(
            proposed, source=self._source, event_id=proposed.release_id, at_ms=proposed.proposed_at
        )
        return Outgoing(
            topic=self._topics.name("releases"),
            key=proposed.release_id.encode(),
            value=value,
            headers=headers,
            partition=0,
        )

    def dead_letter(self, record: Record, error: BaseException) -> Outgoing:
        """A record nobody can read, with the reason; stamped with the record's own time, so that it repeats equal."""
        return dead_letter(
            record,
            topic=self._topics.name("dead-letters"),
            error=error,
            service="trainer",
            at_ms=record.timestamp_ms,
        )


def _place_of(effect: Effect) -> tuple[str, str]:
    """Topic and key."""
    if isinstance(effect, FeedbackStatus):
        return "feedback.status", effect.feedback_id
    if isinstance(effect, QuarantinedFeedback):
        return "feedback.quarantine", effect.feedback.query_id
    if isinstance(effect, ChangeStatus):
        return "changes", effect.change
    return "audit", effect.actor
