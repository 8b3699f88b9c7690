"""Brings the decision log to one endpoint: a consumer group of its own, beside the judge and never in its way.

The group's committed offset says which decision comes next and its metadata which one was taken last, so that neither
a restart nor another instance skips or repeats one. Only an instance that ends or loses the log between an endpoint's
answer and the commit leaves a post to be repeated, under the same id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from schemas.decisions import Decision
from services.gatekeeper.metrics import GatekeeperMetrics
from services.gatekeeper.webhook import WebhookClient, message_of
from services.gatekeeper.webhook_settings import WebhookSettings
from twinloop.bus.records import Record, TopicPartition
from twinloop.bus.stream import TransactionalStream
from twinloop.clock import Clock
from twinloop.codec import decode
from twinloop.errors import InvalidEvent, SignatureError, Transient
from twinloop.signing import KeyRing, verify_document
from twinloop.telemetry.logging import get_logger

_log = get_logger(__name__)
_DECISION = Decision.type.encode()
_POLL_S = 0.2
_AGAIN_S = 5.0
"""Pause before Kafka is asked again, where the feed itself failed."""

OpenStream = Callable[["WebhookFeed"], TransactionalStream]


class WebhookFeed:
    """Posts every decision to one endpoint, in order; `run` is the body of a thread of its own."""

    def __init__(
        self,
        name: str,
        *,
        open_stream: OpenStream,
        begin_at: int,
        source: TopicPartition,
        client: WebhookClient,
        settings: WebhookSettings,
        ring: KeyRing,
        metrics: GatekeeperMetrics,
        clock: Clock,
    ) -> None:
        """`begin_at` is the offset where an endpoint that was never fed begins."""
        self._name, self._open_stream, self._begin_at = name, open_stream, begin_at
        self._source, self._client, self._settings = source, client, settings
        self._ring, self._metrics, self._clock = ring, metrics, clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"webhook-{name}", daemon=True)
        self._stream: TransactionalStream | None = None
        self._kept: tuple[str, int] = ("", 0)
        """Incarnation and epoch of the last decision that is committed as taken, or as given up."""
        self._done: tuple[str, int] = ("", 0)
        """The same of the last one this instance was done with: its commit may have been undone by a rebalance."""
        self._is_place_kept = True
        metrics.webhook_begins(name)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stops after the attempt that is under way."""
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to read on, asked by the stream whenever it is given the log."""
        stream = self._stream
        if stream is None or self._source not in partitions:
            return {}
        found = stream.committed_metadata([self._source])
        self._is_place_kept = self._source in found
        offset, note = found.get(self._source, (self._begin_at, ""))
        incarnation, _, epoch = note.partition(" ")
        self._kept = (incarnation, int(epoch) if epoch else 0)
        return {self._source: offset}

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._feed()
            except Transient as error:
                _log.warning("webhook_waits", endpoint=self._name, reason=str(error))
            except Exception:
                # The judge must not fall with it: the group's offset is where the next attempt goes on.
                _log.exception("webhook_failed", endpoint=self._name)
                self._metrics.webhook(self._name, "feed_failed")
            self._stopping.wait(_AGAIN_S)

    def _feed(self) -> None:
        """Read and post until stopped or the stream breaks."""
        self._stream = stream = self._open_stream(self)
        try:
            while not self._stopping.is_set():
                records = stream.poll(1, _POLL_S)
                if not self._is_place_kept and self._source in stream.assignment():
                    # Before the first decision comes: a restart must not begin later than this one did.
                    stream.commit({self._source: self._begin_at})
                    self._is_place_kept = True
                for record in records:
                    self._take(stream, record)
        finally:
            self._stream = None
            stream.close()

    def _take(self, stream: TransactionalStream, record: Record) -> None:
        """Delivers the record's decision, where it is one that was not taken, and keeps the place behind it.

        A commit that was undone brings the record again: then it is the place alone that is still to be kept.
        """
        decision = self._decision(record)
        if decision is None or _is_at_or_before(decision, self._kept):
            return
        if not _is_at_or_before(decision, self._done) and not self._deliver(stream, decision):
            return
        at = self._done = (decision.state.incarnation, decision.epoch)
        try:
            stream.commit({record.source: record.offset + 1}, metadata={record.source: f"{at[0]} {at[1]}"})
        except Transient as error:
            _log.warning("webhook_place_undone", endpoint=self._name, epoch=decision.epoch, reason=str(error))
            return
        self._kept = at
        self._metrics.webhook_waits(self._name, 0.0)

    def _decision(self, record: Record) -> Decision | None:
        """The decision, where the record is one that holds."""
        if record.header("ce_type") != _DECISION:
            return None
        try:
            decision = decode(record, Decision)
            verify_document(decision.state, self._ring, role="gatekeeper")
        except (InvalidEvent, SignatureError) as error:
            _log.error("decision_ignored", offset=record.offset, reason=str(error))
            return None
        return decision

    def _deliver(self, stream: TransactionalStream, decision: Decision) -> bool:
        """Post until it is taken or given up; False where the log was taken from this instance meanwhile."""
        message, began, attempt = message_of(decision), self._clock.monotonic(), 0
        try:
            while True:
                try:
                    self._client.post(message, at_s=self._clock.now_ms() // 1000)
                except Transient as error:
                    attempt += 1
                    self._refused(decision, error, attempt=attempt)
                else:
                    self._metrics.webhook(self._name, "taken")
                    return True
                if self._clock.monotonic() - began >= self._settings.give_up_s:
                    self._metrics.webhook(self._name, "given_up")
                    _log.error("webhook_given_up", endpoint=self._name, decision=message.id, attempts=attempt)
                    return True
                if not self._pause(stream, self._delay_s(attempt)):
                    return False
        finally:
            stream.resume()

    def _refused(self, decision: Decision, error: Transient, *, attempt: int) -> None:
        self._metrics.webhook(self._name, "refused")
        self._metrics.webhook_waits(self._name, (self._clock.now_ms() - decision.decided_at) / 1000)
        _log.warning(
            "webhook_refused",
            endpoint=self._name,
            decision=decision.decision_id,
            attempt=attempt,
            reason=str(error),
        )

    def _delay_s(self, attempt: int) -> float:
        exponent = min(attempt - 1, 30)
        return min(self._settings.longest_retry_s, self._settings.first_retry_s * 2.0**exponent)

    def _pause(self, stream: TransactionalStream, seconds: float) -> bool:
        """Wait as a member of the group, which means to go on polling; False where it is over with this record."""
        stream.pause()
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            if self._stopping.is_set():
                return False
            stream.poll(1, min(left, _POLL_S))
            if self._source not in stream.assignment():
                return False
        return True


def _is_at_or_before(decision: Decision, place: tuple[str, int]) -> bool:
    """Whether it is of that incarnation and no later epoch: only the first valid one of an epoch counts."""
    incarnation, epoch = place
    return decision.state.incarnation == incarnation and decision.epoch <= epoch
