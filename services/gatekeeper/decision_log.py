"""The decision log: publish, read back, and believe only the first valid record of each epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.audit import AuditEntry
from schemas.decisions import Decision, DecisionKind, Progress
from schemas.event import Event
from schemas.routing import RoutingState
from services.gatekeeper.core.turn import decision_digest
from services.gatekeeper.gate_log import Producer
from twinloop.bus.records import Outgoing, Record
from twinloop.clock import Clock
from twinloop.codec import decode, encode
from twinloop.errors import InvalidEvent, SignatureError, Transient
from twinloop.signing import KeyRing, Signer, sign_document, verify_document
from twinloop.telemetry.logging import get_logger

_log = get_logger(__name__)
_DECISION = Decision.type.encode()
_KEPT = 256


class Reader(Protocol):
    """Reads one log from its beginning."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]: ...

    def read_to_end(self, timeout_s: float = 10.0) -> list[Record]: ...


@dataclass(frozen=True)
class Winner:
    """The first valid record of an epoch."""

    kind: DecisionKind
    digest: str
    """Of the unsigned decision."""
    state: RoutingState
    """Signed."""


class DecisionLog:
    """One process's view of `decisions`; used by one thread."""

    def __init__(
        self,
        producer: Producer,
        reader: Reader,
        *,
        topic: str,
        audit_topic: str,
        signer: Signer,
        ring: KeyRing,
        source: str,
        clock: Clock,
    ) -> None:
        self._producer, self._reader = producer, reader
        self._topic, self._audit_topic = topic, audit_topic
        self._signer, self._ring, self._source, self._clock = signer, ring, source, clock
        self._winners: dict[int, Winner] = {}
        self._digests: dict[int, str] = {}
        self.incarnation: str | None = None
        """Of the first decision there is; None while there is none."""

    def read_to_end(self, timeout_s: float) -> None:
        """Take in everything logged so far."""
        self._take(self._reader.read_to_end(timeout_s))

    def read(self, timeout_s: float = 0.0) -> None:
        """Take in what is new."""
        self._take(self._reader.poll(500, timeout_s))

    def digest_of(self, epoch: int) -> str | None:
        """Digest of the winner of an epoch, without signatures."""
        return self._digests.get(epoch)

    def winner(self, epoch: int) -> Winner | None:
        """The winner of one of the latest epochs."""
        return self._winners.get(epoch)

    def publish(self, decision: Decision, *, timeout_s: float) -> None:
        """Sign and log a decision and wait until this process has read the epoch's winner back.

        Raises Transient where it does not come back in time; calling again is safe, because the first record wins.
        """
        self.read()
        if decision.epoch not in self._digests:
            signed = decision.model_copy(update={"state": sign_document(decision.state, self._signer)})
            self._send(self._topic, signed, key=str(decision.epoch), event_id=decision.decision_id)
            self._producer.flush(timeout_s)
        deadline = time.monotonic() + timeout_s
        while decision.epoch not in self._digests:
            if time.monotonic() > deadline:
                raise Transient(
                    f"{self._topic}: epoch {decision.epoch} did not come back within {timeout_s:g} s"
                )
            self.read(0.02)

    def publish_progress(self, progress: Progress) -> None:
        """Tell people; nobody waits for it."""
        self._send(self._topic, progress, key=str(progress.epoch), event_id=f"progress-{progress.at}")

    def publish_audit(self, entry: AuditEntry, *, event_id: str) -> None:
        """Write down who wanted what."""
        self._send(self._audit_topic, entry, key=entry.actor, event_id=event_id)

    def _send(self, topic: str, event: Event, *, key: str, event_id: str) -> None:
        value, headers = encode(event, source=self._source, event_id=event_id, at_ms=self._clock.now_ms())
        self._producer.send(Outgoing(topic, value, key=key.encode(), headers=headers, partition=0))

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.header("ce_type") != _DECISION:
                continue
            try:
                decision = decode(record, Decision)
                verify_document(decision.state, self._ring, role="gatekeeper")
            except (InvalidEvent, SignatureError) as error:
                _log.error("decision_ignored", offset=record.offset, reason=str(error))
                continue
            self._note(decision)

    def _note(self, decision: Decision) -> None:
        if decision.epoch in self._digests:
            return
        digest = decision_digest(decision)
        self.incarnation = self.incarnation or decision.state.incarnation
        self._digests[decision.epoch] = digest
        self._winners[decision.epoch] = Winner(decision.kind, digest, decision.state)
        if len(self._winners) > _KEPT:
            del self._winners[min(self._winners)]
