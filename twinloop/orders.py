"""Signed orders, as the command line and the API make them alike."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from schemas.audit import AuditEntry
from schemas.commands import Action, Command
from twinloop.bus.records import Outgoing
from twinloop.codec import encode
from twinloop.signing import Signer, sign_document
from twinloop.topics import TopicCatalogue

VALID_MS = 60_000
"""How long an order is good for."""
DECIDING: frozenset[Action] = frozenset(
    {"rollback", "abort", "pause", "resume", "jump", "ab_start", "ab_stop"}
)
"""Orders that lead to a decision at once; the others change what the gatekeeper waits for."""

WAITS_FOR_ANOTHER = "waits for a second approver"
"""What the gatekeeper says of a forced promotion until another approver, with another key, agrees."""

_NONCE = re.compile(r"\[([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})\]\s*$")


def signed_order(
    signer: Signer,
    action: Action,
    *,
    actor: str,
    reason: str,
    nonce: str,
    now_ms: int,
    release: str | None = None,
    parameters: Mapping[str, JsonValue] | None = None,
) -> Command:
    """An order of `actor`, signed, good for one minute from `now_ms`."""
    order = Command(
        nonce=nonce,
        actor=actor,
        action=action,
        release=release,
        reason=reason,
        parameters=dict(parameters or {}),
        issued_at=now_ms,
        expires_at=now_ms + VALID_MS,
        key_id=signer.key_id,
    )
    return sign_document(order, signer)


def order_record(order: Command, topics: TopicCatalogue, *, source: str) -> Outgoing:
    """The record that gives an order."""
    value, head = encode(order, source=source, event_id=order.nonce, at_ms=order.issued_at)
    return Outgoing(topics.name("commands"), value, key=order.actor.encode(), headers=head, partition=0)


def nonce_of(entry: AuditEntry) -> str | None:
    """The order an audit entry is about: the gatekeeper ends its detail with the nonce in brackets."""
    found = _NONCE.search(entry.detail)
    return found[1] if found else None
