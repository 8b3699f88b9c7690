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
from services.api.auditing import Auditor, Producer
from services.api.core.documents import OrderView
from services.api.core.read_model import FORCE_SWAP, OrderOutcome, SwapWish
from services.api.core.swap_rule import Conflict, Give, WaitForAnother, judge_swap
from services.api.follower import Follower
from services.api.problems import ProblemRaised
from twinloop.api_tokens import TokenEntry
from twinloop.clock import Clock
from twinloop.errors import CommandRefused, ConfigError
from twinloop.orders import DECIDING, order_record, signed_order
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
        auditor: Auditor,
        *,
        signer_for: SignerFor,
        clock: Clock,
        wait_s: float,
        second_person_s: float,
    ) -> None:
        self._producer, self._topics, self._follower, self._auditor = producer, topics, follower, auditor
        self._signer_for, self._clock = signer_for, clock
        self._wait_s, self._wish_ms = wait_s, second_person_s * 1000

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
                self._signer_for(_key_of(caller)),
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
        """Approve the candidate whose gates cleared, or force it with a second approver; raises ProblemRaised, 409."""
        with self._follower.model() as model:
            now = self._clock.now_ms()
            wish = model.wish(model.candidate or "", now_ms=now, valid_ms=self._wish_ms)
            found = judge_swap(model, actor=caller.id, release=release, force=force, wish=wish)
        if isinstance(found, Conflict):
            raise ProblemRaised(409, found.why, code=found.code, missing=list(found.missing))
        if isinstance(found, WaitForAnother):
            return await self._wish(caller, found.release, reason)
        return await self._swap(caller, found, reason, key=key)

    async def _swap(self, caller: TokenEntry, found: Give, reason: str, *, key: str | None) -> OrderView:
        parameters = {"second_person": found.second_person} if found.second_person else {}
        return await self.give(
            caller, found.action, reason, key=key, release=found.release, parameters=parameters
        )

    async def _wish(self, caller: TokenEntry, release: str, reason: str) -> OrderView:
        """Write it into the audit log: every API reads it there, also after a restart."""
        now = self._clock.now_ms()
        entry = AuditEntry(
            at=now,
            actor=caller.id,
            via="api",
            action=FORCE_SWAP,
            target=release,
            result="accepted",
            detail=reason,
        )
        self._producer.send(self._auditor.record(entry))
        await asyncio.to_thread(self._producer.flush, 5.0)
        deadline = self._clock.monotonic() + self._wait_s
        while self._clock.monotonic() < deadline and self._wish_seen(release) is None:
            await asyncio.sleep(_LOOK_EVERY_S)
        return OrderView(
            nonce=f"wish-{now}",
            action="promote",
            result="waits_for_another",
            detail=f"{caller.id} asked to force {release[:12]}; another approver has to ask within "
            f"{self._wish_ms / 60_000:g} minutes",
            decision=None,
        )

    def _wish_seen(self, release: str) -> SwapWish | None:
        with self._follower.model() as model:
            return model.wish(release, now_ms=self._clock.now_ms(), valid_ms=self._wish_ms)

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
    result: Literal["accepted", "pending"] = "accepted" if entry or decision else "pending"
    if decision is not None:
        detail = decision.line
    elif entry is not None:
        detail = entry.detail
    elif action in UNTOLD:
        detail = "published; /decisions shows the candidate when it is staged"
    else:
        detail = "published; the gatekeeper has not said anything yet, /decisions will"
    return OrderView(nonce=nonce, action=action, result=result, detail=detail, decision=decision)


def _key_of(caller: TokenEntry) -> str:
    if caller.key_id is None:
        raise ConfigError(
            f"the token of {caller.id} names no key to sign orders with; make it again with --key"
        )
    return caller.key_id
