"""`twinloop rollback --break-glass`: the write itself, and what is kept for those who ask afterwards."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from pydantic import ValidationError

from schemas.audit import AuditEntry
from schemas.routing import RoutingState
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.records import Outgoing
from twinloop.canonical import canonical_json
from twinloop.cli.connection import Connection
from twinloop.clock import SystemClock
from twinloop.codec import encode
from twinloop.errors import ConfigError, SignatureError, Transient
from twinloop.registry.blobs import open_store
from twinloop.registry.releases import load_release
from twinloop.routing.break_glass import choose_target, rolled_back
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import Installed, Refused
from twinloop.routing.verification import state_verifier
from twinloop.signing import sign_document

_AUDIT_PATIENCE_S = 2.0
_TRIES = 5
ROLE = "break-glass"


def roll_back_by_hand(
    connection: Connection, *, release: str | None, reason: str, actor: str, key_id: str
) -> tuple[RoutingState, Installed]:
    """Writes the rollback to Redis and asks nothing of Kafka or the gatekeeper.

    Raises CommandRefused for a target that may not serve, ConfigError for a key without the role, a missing routing
    state, SignatureError for a forged one, Transient where Redis is silent or others keep writing.
    """
    if ROLE not in connection.ring.roles_of(key_id):
        raise ConfigError(f"key {key_id!r} has not the role {ROLE} in {connection.settings.keys.public_path}")
    store = RedisRoutingStore(connection.settings.redis)
    try:
        signed, outcome = _write(connection, store, release=release, actor=actor, key_id=key_id)
    finally:
        store.close()
    entry = AuditEntry(
        at=signed.changed_at,
        actor=actor,
        via="break-glass",
        action="rollback",
        target=signed.active_release,
        result="accepted",
        detail=f"{reason[:400]} [{signed.decision_id}]",
    )
    keep(connection.home.root / "break-glass.jsonl", entry)
    return signed, outcome


def _write(
    connection: Connection, store: RedisRoutingStore, *, release: str | None, actor: str, key_id: str
) -> tuple[RoutingState, Installed]:
    signer = connection.signer(key_id)
    refused = Refused("not_higher")
    for _ in range(_TRIES):
        state = _believed(connection, store)
        target = choose_target(state, release)
        unsigned = rolled_back(
            state,
            target=target,
            rules=state.rules.get(target) or _rules_of(connection, target),
            actor=actor,
            decision_id=f"break-glass-{uuid.uuid4().hex[:16]}",
            at_ms=SystemClock().now_ms(),
        )
        signed = sign_document(unsigned, signer)
        outcome = store.install(canonical_json(signed), mode="break-glass")
        if isinstance(outcome, Installed):
            return signed, outcome
        refused = outcome
    raise Transient(
        f"redis refused the write {_TRIES} times ({refused.reason}): others write at the same time"
    )


def keep(path: Path, entry: AuditEntry) -> None:
    """Appends the entry to a file that survives this machine's power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, entry.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_kept(connection: Connection) -> int:
    """Publishes what was kept while Kafka was dead and forgets it; how many. Raises Transient where it still is."""
    path = connection.home.root / "break-glass.jsonl"
    if not path.exists():
        return 0
    entries = [AuditEntry.model_validate_json(line) for line in path.read_text().splitlines() if line]
    producer = IdempotentProducer(connection.settings.kafka)
    for entry in entries:
        event_id = f"break-glass.{entry.actor}.{entry.at}"
        value, head = encode(entry, source=f"cli/{entry.actor}", event_id=event_id, at_ms=entry.at)
        topic = connection.topics.name("audit")
        producer.send(Outgoing(topic, value, key=entry.actor.encode(), headers=head, partition=0))
    producer.close(_AUDIT_PATIENCE_S)
    path.rename(path.with_suffix(".published.jsonl"))
    return len(entries)


def _believed(connection: Connection, store: RedisRoutingStore) -> RoutingState:
    raw = store.read()
    if raw is None:
        raise ConfigError(
            f"redis holds no routing state under {connection.settings.redis.key}: nothing can be rolled back by hand; "
            "routers go on with their last state, and a gatekeeper puts the key back"
        )
    try:
        state = RoutingState.model_validate_json(raw)
    except ValidationError as cause:
        raise SignatureError("the routing key holds no routing state: routers ignore it too") from cause
    state_verifier(connection.ring)(state)
    return state


def _rules_of(connection: Connection, release: str) -> str:
    """From the store: a release that is not resident; raises ArtifactError, SignatureError."""
    ring = connection.ring
    stored = load_release(
        open_store(connection.settings.store),
        release,
        verify=lambda message, block: ring.verify(message, block.signature, block.key_id, role="trainer"),
    )
    return stored.release.rules
