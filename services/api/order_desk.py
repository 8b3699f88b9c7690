"""Orders of people who called: signed in their name, published, and followed to what came of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import JsonValue

from schemas.audit import AuditEntry
from schemas.commands import Action
from schemas.decisions import Decision
from services.api.auditing import Producer
from services.api.core.documents import OrderView
from services.api.core.read_model import OrderOutcome
from services.api.core.swap_rule import Conflict, judge_swap
from services.api.follower import Follower
from services.api.problems import ProblemRaised
from twinloop.api_tokens import TokenEntry
from twinloop.clock import Clock
from twinloop.errors import CommandRefused, ConfigError
from twinloop.orders import DECIDING, WAITS_FOR_ANOTHER, order_record, signed_order
from twinloop.signing import Signer
from twinloop.topics import TopicCatalogue

SignerFor = Callable[[str], Signer]
UNTOLD: frozenset[Action] = frozenset({"train"})
"""Orders the gatekeeper says nothing about: the trainer carries them out."""
_LOOK_EVERY_S = 0.03


class OrderDesk:
    """Gives orders; one event loop."""

    def __init__(
        self,
        producer: Producer,
        topics: TopicCatalogue,
        follower: Follower,
        *,
        signer_for: SignerFor,
        clock: Clock,
        wait_s: float,
    ) -> None:
        self._producer, self._topics, self._follower = producer, topics, follower
        self._signer_for, self._clock = signer_for, clock
        self._wait_s = wait_s

    async def give(
        self,
        caller: TokenEntry,
        action: Action,
        reason: str,
        *,
        key: str | None = None,
        release: str | None = None,
        parameters: Mapping[str, JsonValue] | None = None,
    ) -> OrderView:
        """Publish a signed order and say what came of it.

        `key` makes the nonce: the same key never gives a second order. Raises CommandRefused with the gatekeeper's
        reason, ConfigError where the caller has no key to sign with, Transient where Kafka does not take the order.
        """
        nonce = order_nonce(key)
        with self._follower.model() as model:
            known = model.order(nonce)
        if known == OrderOutcome():
            order = signed_order(
                self._signer_for(key_of(caller)),
                action,
                actor=caller.id,
                reason=reason,
                nonce=nonce,
                now_ms=self._clock.now_ms(),
                release=release,
                parameters={**(parameters or {}), "via": "api"},
            )
            self._producer.send(order_record(order, self._topics, source=f"api/{caller.id}"))
            await asyncio.to_thread(self._producer.flush, 5.0)
        return await self._outcome(action, nonce)

    async def swap(
        self, caller: TokenEntry, reason: str, *, release: str | None, force: bool, key: str | None
    ) -> OrderView:
        """Approve the candidate whose gates cleared, or force it; raises ProblemRaised, 409, and as `give` does."""
        with self._follower.model() as model:
            known = key is not None and model.order(order_nonce(key)) != OrderOutcome()
            found = judge_swap(model, release=release, force=force)
        if known:
            return await self._outcome("promote" if force else "approve", order_nonce(key))
        if isinstance(found, Conflict):
            raise ProblemRaised(409, found.why, code=found.code, missing=list(found.missing))
        return await self.give(caller, found.action, reason, key=key, release=found.release)

    async def _outcome(self, action: Action, nonce: str) -> OrderView:
        deadline = self._clock.monotonic() + (0.0 if action in UNTOLD else self._wait_s)
        while True:
            with self._follower.model() as model:
                outcome = model.order(nonce)
            entry, decision = outcome.entry, outcome.decision
            if entry is not None and entry.result == "refused":
                raise CommandRefused(f"{action} was refused: {entry.detail}")
            is_done = decision is not None or (entry is not None and action not in DECIDING)
            if is_done or self._clock.monotonic() >= deadline:
                return _told(action, nonce, entry=entry, decision=decision)
            await asyncio.sleep(_LOOK_EVERY_S)


def order_nonce(key: str | None) -> str:
    """Unique for ever, or the one that belongs to an idempotency key."""
    return uuid.uuid4().hex if key is None else key[:32]


def _told(action: Action, nonce: str, *, entry: AuditEntry | None, decision: Decision | None) -> OrderView:
    result: Literal["accepted", "pending", "waits_for_another"] = (
        "accepted" if entry or decision else "pending"
    )
    if entry is not None and WAITS_FOR_ANOTHER in entry.detail:
        result = "waits_for_another"
    if decision is not None:
        detail = decision.line
    elif entry is not None:
        detail = entry.detail
    elif action in UNTOLD:
        detail = "published; /decisions shows the candidate when it is staged"
    else:
        detail = "published; the gatekeeper has not said anything yet, /decisions will"
    return OrderView(nonce=nonce, action=action, result=result, detail=detail, decision=decision)


def key_of(caller: TokenEntry) -> str:
    """The key that signs what this holder orders; raises ConfigError where the token names none."""
    if caller.key_id is None:
        raise ConfigError(
            f"the token of {caller.id} names no key to sign orders with; make it again with --key"
        )
    return caller.key_id
