"""Audit events of the API's calls, on their way to `audit`."""

from __future__ import annotations

import uuid
from typing import Protocol

from schemas.audit import AuditEntry
from services.api.metrics import ApiMetrics
from twinloop.bus.records import Outgoing
from twinloop.clock import Clock
from twinloop.codec import encode
from twinloop.errors import TwinLoopError
from twinloop.telemetry.logging import get_logger
from twinloop.topics import TopicCatalogue

ANONYMOUS_EVERY_S = 10.0
"""Refused calls without a token are told together, so that nobody fills the log by asking."""
_log = get_logger(__name__)


class Producer(Protocol):
    """Sends records outside any transaction."""

    def send(self, outgoing: Outgoing) -> None: ...

    def flush(self, timeout_s: float = 10.0) -> None: ...


class Auditor:
    """One event a call; what Kafka does not take is logged and counted."""

    def __init__(
        self, producer: Producer, topics: TopicCatalogue, *, source: str, metrics: ApiMetrics, clock: Clock
    ) -> None:
        self._producer, self._topic, self._source = producer, topics.name("audit"), source
        self._metrics, self._clock = metrics, clock
        self._anonymous_at, self._anonymous = float("-inf"), 0

    def note(self, entry: AuditEntry) -> None:
        """Send without waiting."""
        if entry.actor == "anonymous":
            self._anonymous += 1
            if self._clock.monotonic() - self._anonymous_at < ANONYMOUS_EVERY_S:
                return
            self._anonymous_at = self._clock.monotonic()
            detail = f"{entry.detail}, {self._anonymous} calls without a token since the last such event"
            entry, self._anonymous = entry.model_copy(update={"detail": detail}), 0
        try:
            self._producer.send(self.record(entry))
        except TwinLoopError as error:
            self._metrics.unaudited.inc()
            _log.error("unaudited", action=entry.action, actor=entry.actor, reason=str(error))

    def record(self, entry: AuditEntry) -> Outgoing:
        value, head = encode(entry, source=self._source, event_id=uuid.uuid4().hex, at_ms=entry.at)
        return Outgoing(self._topic, value, key=entry.actor.encode(), headers=head, partition=0)
