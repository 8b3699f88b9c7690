"""Proposed changes by hand: read from their topic, proposed, reviewed, and followed to what the trainer says."""

from __future__ import annotations

import time
from collections.abc import Callable

from schemas.audit import AuditEntry
from schemas.changes import ChangeProposed, ChangeReviewed, ChangeStatus, ReleaseDocuments
from twinloop.bus.producer import IdempotentProducer
from twinloop.changes.change_log import ChangeLog, KnownChange, decode_change
from twinloop.changes.signed import TOPIC, change_record
from twinloop.cli.connection import Connection
from twinloop.cli.operation_commands import logged_decisions
from twinloop.cli.orders import Log
from twinloop.codec import decode
from twinloop.errors import CommandRefused, ConfigError, NotReady, Transient
from twinloop.orders import nonce_of


def known_changes(connection: Connection) -> ChangeLog:
    """Every change there is."""
    changes = ChangeLog()
    with connection.log(TOPIC) as log:
        for record in log.read_to_end():
            changes.take(decode_change(record))
    return changes


def find_change(connection: Connection, name: str) -> KnownChange:
    """The change of this name; raises ConfigError where there is none."""
    found = known_changes(connection).get(name)
    if found is None:
        raise ConfigError(f"there is no change {name}; `twinloop pr list` shows those there are")
    return found


def active_documents(connection: Connection) -> ReleaseDocuments:
    """Digests of the active release's rules and prompt: what a patch is written for."""
    from twinloop.registry.blobs import open_store
    from twinloop.registry.releases import load_release

    decisions = list(logged_decisions(connection))
    if not decisions:
        raise NotReady("no release serves yet: the gatekeeper has not logged its first decision")
    ring = connection.ring
    release = load_release(
        open_store(connection.settings.store),
        decisions[-1].state.active_release,
        verify=lambda message, block: ring.verify(message, block.signature, block.key_id),
    ).release
    return ReleaseDocuments(rules=release.rules, prompt=release.prompt)


def give(
    connection: Connection, event: ChangeProposed | ChangeReviewed, *, timeout_s: float
) -> ChangeStatus | AuditEntry:
    """Publish a proposal or a review and wait for what the trainer says of it.

    Raises CommandRefused with the trainer's reason, Transient where it says nothing within `timeout_s`.
    """
    with (
        connection.log(TOPIC, from_end=True) as changes,
        connection.log("audit", from_end=True) as audit,
    ):
        # Both readers must stand at the end before the record is published, or its outcome may be missed.
        changes.poll(1, 0.2)
        audit.poll(1, 0.2)
        producer = IdempotentProducer(connection.settings.kafka)
        actor = event.author if isinstance(event, ChangeProposed) else event.reviewer
        producer.send(change_record(event, connection.topics, source=f"cli/{actor}"))
        producer.close()
        return follow(event, changes=changes, audit=audit, timeout_s=timeout_s)


def follow(
    event: ChangeProposed | ChangeReviewed,
    *,
    changes: Log,
    audit: Log,
    timeout_s: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> ChangeStatus | AuditEntry:
    """Read on until the trainer has accepted or refused it; raises as `give` does."""
    name, nonce = (event.id, event.id) if isinstance(event, ChangeProposed) else (event.change, event.nonce)
    deadline = monotonic() + timeout_s
    status: ChangeStatus | None = None
    while monotonic() < deadline:
        for record in changes.poll(100, 0.05):
            said = decode_change(record)
            if isinstance(said, ChangeStatus) and said.change == name:
                status = said
        for record in audit.poll(100, 0.05):
            entry = decode(record, AuditEntry)
            if nonce_of(entry) != nonce:
                continue
            if entry.result == "refused":
                raise CommandRefused(f"{entry.action} was refused: {entry.detail}")
            return status or entry
    raise Transient(
        f"{name}: the trainer said nothing within {timeout_s:g} s; is it running? `twinloop status` says"
    )
