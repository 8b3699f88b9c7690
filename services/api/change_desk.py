"""Proposed changes of people who called: signed in their name, published, and followed to what the trainer says."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Literal

from schemas.changes import ChangeProposed, ChangeReviewed, ReleaseDocuments
from services.api.auditing import Producer
from services.api.core.change_documents import ChangeProposal
from services.api.core.read_model import ReadModel
from services.api.follower import Follower
from services.api.order_desk import SignerFor, key_of, order_nonce
from services.api.problems import ProblemRaised
from services.api.release_shelf import ReleaseShelf
from twinloop.api_tokens import TokenEntry
from twinloop.changes.change_log import KnownChange
from twinloop.changes.signed import change_record, signed_proposal, signed_review
from twinloop.clock import Clock
from twinloop.errors import CommandRefused, NotReady
from twinloop.topics import TopicCatalogue

_LOOK_EVERY_S = 0.03
_CONFLICTS = ("stale", "repeated", "too-many")
"""Refusals that are about what is going on, and not about the patch itself."""


class ChangeDesk:
    """Proposes and reviews; one event loop."""

    def __init__(
        self,
        producer: Producer,
        topics: TopicCatalogue,
        follower: Follower,
        releases: ReleaseShelf,
        *,
        signer_for: SignerFor,
        clock: Clock,
        wait_s: float,
    ) -> None:
        self._producer, self._topics, self._follower = producer, topics, follower
        self._releases, self._signer_for, self._clock = releases, signer_for, clock
        self._wait_s = wait_s

    async def propose(self, caller: TokenEntry, wanted: ChangeProposal, *, key: str | None) -> KnownChange:
        """Publish a signed proposal and say what the trainer found; `key` makes its id.

        Raises ProblemRaised where it was refused: 409 where the documents are others by now, else 422. Raises
        ConfigError where the caller has no key to sign with, NotReady before any release serves, Transient.
        """
        name = f"pr-{order_nonce(key)[:12]}"
        if self._known(name) is None:
            proposal = signed_proposal(
                self._signer_for(key_of(caller)),
                wanted.patch,
                change=name,
                author=caller.id,
                base=wanted.base or await self._active_documents(),
                reason=wanted.reason,
                via="api",
                now_ms=self._clock.now_ms(),
            )
            await self._publish(proposal, caller)
        known = await self._until(lambda model: _examined(model, name), name)
        if known.status is not None and known.status.stage == "refused":
            code = known.status.code or "invalid"
            status = 409 if code in _CONFLICTS else 422
            raise ProblemRaised(status, known.status.detail, code=f"change-{code}", change=name)
        return known

    async def review(
        self,
        caller: TokenEntry,
        name: str,
        verdict: Literal["approve", "reject"],
        reason: str,
        *,
        key: str | None,
    ) -> KnownChange:
        """Publish a signed review and say what came of it; raises CommandRefused with the trainer's reason."""
        known = self._known(name)
        if known is None:
            raise ProblemRaised(404, f"there is no change {name}; GET /pr lists those there are")
        nonce = order_nonce(key) if key is not None else uuid.uuid4().hex
        with self._follower.model() as model:
            was_given = model.order(nonce).entry is not None
        if not was_given:
            review = signed_review(
                self._signer_for(key_of(caller)),
                known.proposal,
                verdict,
                nonce=nonce,
                reviewer=caller.id,
                reason=reason,
                via="api",
                now_ms=self._clock.now_ms(),
            )
            await self._publish(review, caller)
        return await self._until(lambda model: _reviewed(model, name, nonce), name)

    def _known(self, name: str) -> KnownChange | None:
        with self._follower.model() as model:
            return model.changes.get(name)

    async def _publish(self, event: ChangeProposed | ChangeReviewed, caller: TokenEntry) -> None:
        self._producer.send(change_record(event, self._topics, source=f"api/{caller.id}"))
        await asyncio.to_thread(self._producer.flush, 5.0)

    async def _until(self, is_told: Callable[[ReadModel], bool], name: str) -> KnownChange:
        """The change once that is told, or as it is when the wait is over."""
        deadline = self._clock.monotonic() + self._wait_s
        while True:
            with self._follower.model() as model:
                known, told = model.changes.get(name), is_told(model)
            if (told and known is not None) or self._clock.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        if known is None:
            raise NotReady(f"{name} is published, but it has not come back yet; GET /pr/{name} will show it")
        return known

    async def _active_documents(self) -> ReleaseDocuments:
        with self._follower.model() as model:
            state = model.state
        if state is None:
            raise NotReady("no release serves yet: the gatekeeper has not logged its first decision")
        name = state.active_release
        found = (await asyncio.to_thread(self._releases.read, [name])).get(name)
        if found is None:
            raise NotReady(f"release {name[:12]} cannot be read from the store; name the documents in `base`")
        return ReleaseDocuments(rules=found.release.rules, prompt=found.release.prompt)


def _examined(model: ReadModel, name: str) -> bool:
    _refuse_refused(model, name)
    known = model.changes.get(name)
    return known is not None and known.status is not None


def _reviewed(model: ReadModel, name: str, nonce: str) -> bool:
    _refuse_refused(model, nonce)
    known = model.changes.get(name)
    is_moved = known is not None and known.status is not None and known.status.stage != "open"
    return model.order(nonce).entry is not None and is_moved


def _refuse_refused(model: ReadModel, nonce: str) -> None:
    entry, known = model.order(nonce).entry, model.changes.get(nonce)
    if entry is None or entry.result != "refused":
        return
    if known is not None and known.status is not None:
        return  # its status says it better
    raise CommandRefused(f"{entry.action} was refused: {entry.detail}")
