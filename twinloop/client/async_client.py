"""The asynchronous client: the synchronous one's producer and reader, awaited from one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

from schemas.answers import Answer
from schemas.documents import DocumentChange
from schemas.event import Domain, Priority
from schemas.feedback import Feedback, FeedbackStatus, Rating
from twinloop.bus.settings import KafkaSettings
from twinloop.client.client import ANSWER_MARGIN_S, Client, NewId, no_answer, random_id
from twinloop.clock import Clock
from twinloop.telemetry.tracing import Tracer
from twinloop.topics import TopicCatalogue, TopicSettings


class AsyncClient:
    """Asks, rates and reads answers without blocking the event loop; for one loop, any number of tasks.

    Librdkafka's threads send and fetch; this class only carries their results into the loop.
    """

    def __init__(self, client: Client, answers: _Answers) -> None:
        """Use `open` or `connect`: they start the client's threads outside the loop."""
        self._client, self._answers = client, answers

    @classmethod
    async def open(
        cls,
        kafka: KafkaSettings,
        topics: TopicCatalogue,
        *,
        name: str,
        clock: Clock | None = None,
        new_id: NewId = random_id,
        tracer: Tracer | None = None,
    ) -> AsyncClient:
        """A client as `Client` makes it; returns when it reads answers. Raises Transient, ConfigError."""
        answers = _Answers(asyncio.get_running_loop())
        client = await asyncio.to_thread(
            lambda: Client(
                kafka, topics, name=name, clock=clock, new_id=new_id, on_answer=answers.put, tracer=tracer
            )
        )
        return cls(client, answers)

    @classmethod
    async def connect(
        cls, bootstrap_servers: str, *, prefix: str = "twinloop.", name: str | None = None
    ) -> AsyncClient:
        """A client of an installation without security settings; use `open` for the others."""
        return await cls.open(
            KafkaSettings(bootstrap_servers=bootstrap_servers),
            TopicCatalogue.under(TopicSettings(prefix=prefix)),
            name=name or f"client-{random_id()[:8]}",
        )

    async def ask(
        self,
        text: str,
        *,
        subject: str | None = None,
        domain: Domain | None = None,
        deadline_ms: int = 10_000,
        query_id: str | None = None,
        priority: Priority = "normal",
        canary_opt_out: bool = False,
        margin_s: float = ANSWER_MARGIN_S,
    ) -> Answer:
        """Publish a query and wait for its answer, which may be an error; cancelling stops the waiting.

        Raises InvalidEvent, and Transient where nothing comes within the deadline and `margin_s`.
        """
        query, answer = self._client.ask_later(
            text,
            subject=subject,
            domain=domain,
            deadline_ms=deadline_ms,
            query_id=query_id,
            priority=priority,
            canary_opt_out=canary_opt_out,
        )
        wait_s = deadline_ms / 1000 + margin_s
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), wait_s)
        except asyncio.TimeoutError as error:
            raise no_answer(query.id, wait_s) from error

    def is_reading(self) -> bool:
        """Whether answers are still read; once they are not, every `ask` fails and a new client is needed."""
        return self._client.is_reading()

    async def rate(
        self,
        answer: Answer,
        *,
        question: str,
        rater: str,
        rating: Rating | None = None,
        correction: str | None = None,
        feedback_id: str | None = None,
    ) -> Feedback:
        """Publish feedback on an answer with a receipt and wait until Kafka has it; raises InvalidEvent, Transient."""
        given = self._client.rate(
            answer,
            question=question,
            rater=rater,
            rating=rating,
            correction=correction,
            feedback_id=feedback_id,
        )
        await self.flush()
        return given

    async def give(self, feedback: Feedback) -> None:
        """Publish feedback made elsewhere and wait until Kafka has it; raises Transient."""
        self._client.give(feedback)
        await self.flush()

    async def change(self, *changes: DocumentChange) -> None:
        """Publish documents' upserts and deletes and wait until Kafka has them; raises InvalidEvent, Transient."""
        for change in changes:
            self._client.change(change)
        await self.flush()

    async def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything published is acknowledged; raises Transient."""
        await asyncio.to_thread(self._client.flush, timeout_s)

    async def answers(self, timeout_s: float) -> AsyncIterator[Answer]:
        """This client's answers as they come, until none came for `timeout_s`."""
        queue = self._answers.subscribe()
        try:
            while True:
                try:
                    yield await asyncio.wait_for(queue.get(), timeout_s)
                except asyncio.TimeoutError:
                    return
        finally:
            self._answers.unsubscribe(queue)

    async def feedback_status(self, feedback_id: str, timeout_s: float = 10.0) -> FeedbackStatus | None:
        """The last status of a feedback, or None where there is none yet; reads the whole status topic."""
        return await asyncio.to_thread(self._client.feedback_status, feedback_id, timeout_s)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Answers:
    """Carries answers from the reading thread to whoever iterates in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: set[asyncio.Queue[Answer]] = set()

    def put(self, answer: Answer) -> None:
        """Called by the reading thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_out, answer)

    def subscribe(self) -> asyncio.Queue[Answer]:
        queue: asyncio.Queue[Answer] = asyncio.Queue()
        self._queues.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Answer]) -> None:
        self._queues.discard(queue)

    def _hand_out(self, answer: Answer) -> None:
        for queue in self._queues:
            queue.put_nowait(answer)
