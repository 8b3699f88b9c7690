"""Questions, ratings and documents of people and applications that called."""

from __future__ import annotations

import uuid
from typing import Protocol

from schemas.answers import Answer
from schemas.documents import DocumentChange
from schemas.event import Domain
from schemas.feedback import Feedback
from services.api.core.chat import STATUS_OF, RatedAnswer
from services.api.metrics import ApiMetrics
from services.api.problems import ProblemRaised
from twinloop.api_tokens import TokenEntry
from twinloop.clock import Clock
from twinloop.errors import Transient

_IDENTIFIER_MAX = 128


class Asker(Protocol):
    """The part of the asynchronous client that is used here."""

    def is_reading(self) -> bool: ...

    async def ask(
        self,
        text: str,
        *,
        subject: str | None = None,
        domain: Domain | None = None,
        deadline_ms: int = 10_000,
        query_id: str | None = None,
        canary_opt_out: bool = False,
        margin_s: float = 15.0,
    ) -> Answer: ...

    async def give(self, feedback: Feedback) -> None: ...

    async def change(self, *changes: DocumentChange) -> None: ...


class QuestionDesk:
    """Publishes in the callers' names; one event loop."""

    def __init__(
        self, client: Asker, *, clock: Clock, metrics: ApiMetrics, max_waiting: int, margin_s: float
    ) -> None:
        self._client, self._clock, self._metrics = client, clock, metrics
        self._max_waiting, self._margin_s, self._waiting = max_waiting, margin_s, 0

    def is_ready(self) -> tuple[bool, str]:
        """Whether answers are read, and what to do where they are not."""
        if self._client.is_reading():
            return True, "answers are read"
        return False, "answers are not read any more; start this process again"

    async def ask(
        self,
        text: str,
        *,
        key: str | None,
        subject: str | None = None,
        domain: Domain | None = None,
        deadline_ms: int = 10_000,
        canary_opt_out: bool = False,
    ) -> Answer:
        """The committed answer, which may be an error; raises ProblemRaised where it cannot be waited for."""
        if self._waiting >= self._max_waiting:
            raise ProblemRaised(
                429,
                f"{self._waiting} questions wait already",
                code="too-many-questions",
                headers={"Retry-After": "1"},
            )
        self._waiting += 1
        self._metrics.waiting.set(self._waiting)
        try:
            return await self._client.ask(
                text,
                subject=subject,
                domain=domain,
                deadline_ms=deadline_ms,
                query_id=made_id(key),
                canary_opt_out=canary_opt_out,
                margin_s=self._margin_s,
            )
        except Transient as error:
            raise ProblemRaised(504, str(error), code="no-answer") from error
        finally:
            self._waiting -= 1
            self._metrics.waiting.set(self._waiting)

    async def rate(self, caller: TokenEntry, rated: RatedAnswer, *, key: str | None) -> Feedback:
        """Feedback that Kafka has taken; the trainer decides later what it is worth. Raises Transient."""
        feedback = Feedback(
            id=made_id(key),
            query_id=rated.query_id,
            receipt=rated.receipt,
            question=rated.question,
            # Within the caller's own name: nobody speaks for another holder's users, or under their quota.
            rater=caller.id if rated.rater is None else f"{caller.id}:{rated.rater}"[:_IDENTIFIER_MAX],
            given_at=self._clock.now_ms(),
            rating=rated.rating,
            correction=rated.correction,
            citation_flag=rated.citation_flag,
            retracts=rated.retracts,
        )
        await self._client.give(feedback)
        return feedback

    async def ingest(self, documents: tuple[DocumentChange, ...]) -> int:
        """Publish documents and wait until Kafka has them; raises Transient, InvalidEvent."""
        await self._client.change(*documents)
        return len(documents)


def made_id(key: str | None) -> str:
    """A fresh id, or the one that belongs to an idempotency key: the router drops a second query of that id."""
    return uuid.uuid4().hex if key is None else key[:32]


def refuse_error(answer: Answer) -> None:
    """Raise what an error answer means in HTTP; an answer with text passes."""
    if answer.error is None:
        return
    status = STATUS_OF[answer.error.kind]
    raise ProblemRaised(
        status,
        answer.error.detail or answer.error.kind,
        code=f"answer-{answer.error.kind}",
        headers={"Retry-After": "1"} if status in (429, 503) else {},
        query_id=answer.query_id,
    )
