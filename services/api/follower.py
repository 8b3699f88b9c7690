"""Follows the topics people look at and keeps the read model current, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from schemas.audit import AuditEntry
from schemas.decisions import Decision, Progress
from schemas.event import Event
from schemas.feedback import FeedbackStatus, QuarantinedFeedback
from schemas.headers import AT, ERROR, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TOPIC, SERVICE
from schemas.readiness import Readiness
from schemas.releases import ReleaseProposed
from services.api.core.read_model import DeadLetter, ReadModel
from twinloop.bus.records import Record, TopicPartition
from twinloop.changes.change_log import decode_change
from twinloop.clock import Clock
from twinloop.codec import decode
from twinloop.errors import InvalidEvent, Transient
from twinloop.telemetry.logging import get_logger
from twinloop.topics import DEAD_LETTERS, TopicCatalogue

FOLLOWED = (
    *("decisions", "releases", "audit", "changes"),
    *("feedback.status", "feedback.quarantine", DEAD_LETTERS),
)
"""Read from their beginning; `readiness` only from now on, because it is repeated every few seconds."""

SILENT_MS = 30_000
_BATCH = 500
_POLL_S = 0.05
_PAUSE_S = 0.5
_log = get_logger(__name__)


class Log(Protocol):
    """Some topics, read in the order of each partition."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]: ...

    def positions(self) -> dict[TopicPartition, int]: ...

    def high_watermarks(self) -> dict[TopicPartition, int]: ...

    def close(self) -> None: ...


class Follower:
    """Owns the read model; `model()` lends it out for a moment."""

    def __init__(self, history: Log, readiness: Log, topics: TopicCatalogue, clock: Clock) -> None:
        self._history, self._readiness, self._topics, self._clock = history, readiness, topics, clock
        self._model = ReadModel()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._caught_up = False
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.unreadable = 0

    @contextmanager
    def model(self) -> Iterator[ReadModel]:
        """The model, for as long as nothing may change it; do no I/O meanwhile."""
        with self._lock:
            yield self._model

    @property
    def version(self) -> int:
        """Grows with every change; read without waiting."""
        return self._model.version

    @property
    def is_caught_up(self) -> bool:
        """Whether everything logged before the start has been read."""
        return self._caught_up

    def is_ready(self) -> tuple[bool, str]:
        if self._failure is not None:
            return False, f"following the logs failed: {self._failure}"
        return (True, "following") if self._caught_up else (False, "reading what was logged before")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)

    def take(self, record: Record) -> None:
        """Fold one record; raises InvalidEvent for one that cannot be read."""
        topic = self._topics.declared_name(record.topic)
        if topic == DEAD_LETTERS:
            letter = self._letter(record)
            with self._lock:
                self._model.take_dead_letter(letter)
        elif topic == "decisions":
            self._take_logged(record)
        elif topic == "changes":
            change = decode_change(record)
            with self._lock:
                self._model.take_change(change)
        else:
            event = decode(record, _EVENTS[topic])
            with self._lock:
                _fold(self._model, event)

    def _take_logged(self, record: Record) -> None:
        if record.header("ce_type") == Progress.type.encode():
            progress = decode(record, Progress)
            with self._lock:
                self._model.take_progress(progress, record.offset)
        else:
            decision = decode(record, Decision)
            with self._lock:
                self._model.take_decision(decision, record.offset)

    def _letter(self, record: Record) -> DeadLetter:
        def said(name: str) -> str:
            return (record.header(name) or b"").decode("utf-8", "replace")

        def number(name: str, otherwise: int) -> int:
            text = said(name)
            return int(text) if text.isdigit() else otherwise

        return DeadLetter(
            topic=self._topics.declared_name(said(ORIGIN_TOPIC)) or "unknown",
            partition=number(ORIGIN_PARTITION, -1),
            offset=number(ORIGIN_OFFSET, -1),
            service=said(SERVICE),
            error=said(ERROR)[:500],
            at=number(AT, record.timestamp_ms),
        )

    def _run(self) -> None:
        try:
            ends = self._ends()
            while not self._stop.is_set():
                try:
                    self._turn(ends)
                except Transient as error:
                    _log.warning("follower_waits", reason=str(error))
                    self._stop.wait(_PAUSE_S)
        except Exception as error:  # `is_ready` tells it, and the process is started again
            self._failure = error
            _log.exception("follower_failed")
        finally:
            self._history.close()
            self._readiness.close()

    def _ends(self) -> Mapping[TopicPartition, int]:
        while not self._stop.is_set():
            try:
                return self._history.high_watermarks()
            except Transient as error:
                _log.warning("follower_waits", reason=str(error))
                self._stop.wait(_PAUSE_S)
        return {}

    def _turn(self, ends: Mapping[TopicPartition, int]) -> None:
        for record in (*self._history.poll(_BATCH, _POLL_S), *self._readiness.poll(_BATCH, 0.0)):
            try:
                self.take(record)
            except InvalidEvent as error:
                self.unreadable += 1
                _log.warning("unreadable", reason=str(error))
        with self._lock:
            self._model.forget_silent(now_ms=self._clock.now_ms(), after_ms=SILENT_MS)
        if not self._caught_up:
            positions = self._history.positions()
            self._caught_up = all(positions.get(source, 0) >= end for source, end in ends.items())


_EVENTS: dict[str, type[Event]] = {
    "releases": ReleaseProposed,
    "audit": AuditEntry,
    "feedback.status": FeedbackStatus,
    "feedback.quarantine": QuarantinedFeedback,
    "readiness": Readiness,
}


def _fold(model: ReadModel, event: Event) -> None:
    if isinstance(event, ReleaseProposed):
        model.take_proposal(event)
    elif isinstance(event, AuditEntry):
        model.take_audit(event)
    elif isinstance(event, FeedbackStatus):
        model.take_feedback_status(event)
    elif isinstance(event, QuarantinedFeedback):
        model.take_quarantined(event)
    elif isinstance(event, Readiness):
        model.take_readiness(event)
