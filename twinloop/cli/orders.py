"""Signed orders: made, published, and followed until the gatekeeper has done or refused them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from pydantic import JsonValue

from schemas.audit import AuditEntry
from schemas.commands import Action, Command
from schemas.decisions import Decision
from twinloop.bus.producer import PromptProducer
from twinloop.bus.records import Record
from twinloop.cli.connection import Connection
from twinloop.clock import SystemClock
from twinloop.codec import decode
from twinloop.errors import CommandRefused, Transient
from twinloop.orders import DECIDING, order_record, signed_order


def make_order(
    connection: Connection,
    action: Action,
    *,
    actor: str,
    key_id: str,
    reason: str,
    release: str | None = None,
    parameters: Mapping[str, JsonValue] | None = None,
) -> Command:
    """A signed order that is good for one minute."""
    return signed_order(
        connection.signer(key_id),
        action,
        actor=actor,
        reason=reason,
        nonce=uuid.uuid4().hex,
        now_ms=SystemClock().now_ms(),
        release=release,
        parameters=parameters,
    )


def publish_order(connection: Connection, order: Command) -> None:
    producer = PromptProducer(connection.settings.kafka)
    producer.send(order_record(order, connection.topics, source=f"cli/{order.actor}"))
    producer.close()


class Log(Protocol):
    """A topic of one partition, read from some point on."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]: ...


def give_order(connection: Connection, order: Command, *, timeout_s: float) -> Decision | AuditEntry:
    """Publish an order and wait for what comes of it: the decision it led to, or the gatekeeper's audit entry.

    Raises CommandRefused with the gatekeeper's reason, Transient where it says nothing within `timeout_s`.
    """
    with (
        connection.log("decisions", from_end=True) as decisions,
        connection.log("audit", from_end=True) as audit,
    ):
        # Both readers must stand at the end before the order is published, or its outcome may be missed.
        decisions.poll(1, 0.2)
        audit.poll(1, 0.2)
        publish_order(connection, order)
        return follow_order(order, decisions=decisions, audit=audit, timeout_s=timeout_s)


def follow_order(
    order: Command,
    *,
    decisions: Log,
    audit: Log,
    timeout_s: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Decision | AuditEntry:
    """Read on until the outcome of a published order is there; raises as `give_order` does.

    The audit entry comes first and the decision a moment later, once the log holds it: where one must follow, it is
    waited for.
    """
    deadline = monotonic() + timeout_s
    accepted: AuditEntry | None = None
    while monotonic() < deadline:
        for record in audit.poll(100, 0.05):
            entry = decode(record, AuditEntry)
            if order.nonce not in entry.detail:
                continue
            if entry.result == "refused":
                raise CommandRefused(f"{order.action} was refused: {entry.detail}")
            if order.action not in DECIDING:
                return entry
            accepted = entry
        for record in decisions.poll(100, 0.05):
            if record.header("ce_type") != Decision.type.encode():
                continue
            decision = decode(record, Decision)
            if decision.evidence.get("command") == order.nonce:
                return decision
    if accepted is not None:
        return accepted
    raise Transient(
        f"{order.action}: the gatekeeper said nothing within {timeout_s:g} s; is it running? `twinloop status` says"
    )
