"""The synchronous client: one producer, one reader of answers in a thread, no state but the open questions."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import Empty, SimpleQueue
from types import TracebackType

from schemas.answers import Answer
from schemas.documents import DocumentChange
from schemas.event import Domain, Event, Priority
from schemas.feedback import Feedback, FeedbackStatus, Rating
from schemas.headers import CLIENT
from schemas.queries import Query
from twinloop.bus.cloudevents import new_traceparent
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, Record
from twinloop.bus.settings import KafkaSettings
from twinloop.clock import Clock, SystemClock
from twinloop.codec import decode, encode
from twinloop.errors import InvalidEvent, Transient
from twinloop.telemetry.logging import get_logger
from twinloop.telemetry.tracing import Hop, Tracer
from twinloop.topics import TopicCatalogue, TopicSettings

OnAnswer = Callable[[Answer], None]
NewId = Callable[[], str]

_log = get_logger(__name__)
ANSWER_MARGIN_S = 15.0
"""The deadline answer is itself an answer; the margin is for its way back."""


def random_id() -> str:
    return uuid.uuid4().hex


def no_answer(query_id: str, waited_s: float) -> Transient:
    """What to say where not even the deadline answer came."""
    return Transient(
        f"query {query_id}: no answer within {waited_s:g} s; `twinloop status` says whether a router and "
        "a worker of the active slot are running"
    )


class Client:
    """Publishes queries, feedback and documents, and hands out answers; safe to share between threads."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: TopicCatalogue,
        *,
        name: str,
        clock: Clock | None = None,
        new_id: NewId = random_id,
        on_answer: OnAnswer | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`name` marks this client's queries, so that it reads its own answers only.

        `tracer` records each `ask` from publishing to its answer; closing it is the caller's.
        Reading starts at the end of `answers`: connect before the first question. Raises Transient, ConfigError.
        """
        self._kafka, self._topics, self._name = kafka, topics, name
        self._clock, self._new_id = clock or SystemClock(), new_id
        self._listeners: list[OnAnswer] = [] if on_answer is None else [on_answer]
        self._tracer = tracer
        self._waiting: dict[str, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._producer = IdempotentProducer(kafka)
        self._reader = LogReader(kafka, topics=[topics.name("answers")], start="end")
        self._thread = threading.Thread(target=self._read, name="answers", daemon=True)
        self._failure: Exception | None = None
        self._thread.start()

    @classmethod
    def connect(cls, bootstrap_servers: str, *, prefix: str = "twinloop.", name: str | None = None) -> Client:
        """A client of an installation without security settings; use the constructor for the others."""
        kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
        return cls(
            kafka,
            TopicCatalogue.under(TopicSettings(prefix=prefix)),
            name=name or f"client-{random_id()[:8]}",
        )

    def publish(
        self,
        text: str,
        *,
        query_id: str | None = None,
        subject: str | None = None,
        domain: Domain | None = None,
        deadline_ms: int = 10_000,
        priority: Priority = "normal",
        canary_opt_out: bool = False,
        traceparent: bytes | None = None,
    ) -> Query:
        """Publish one query and return it without waiting; raises InvalidEvent, Transient.

        `traceparent` (W3C Trace Context) puts it into a trace of the caller's; without one a new trace begins.
        """
        query = Query(
            id=query_id or self._new_id(),
            text=text,
            asked_at=self._clock.now_ms(),
            subject=subject,
            domain=domain,
            deadline_ms=deadline_ms,
            priority=priority,
            client=self._name,
            canary_opt_out=canary_opt_out,
        )
        self._send(query, "queries", key=query.sticky_subject, event_id=query.id, traceparent=traceparent)
        return query

    def ask(
        self,
        text: str,
        *,
        subject: str | None = None,
        domain: Domain | None = None,
        deadline_ms: int = 10_000,
        query_id: str | None = None,
    ) -> Answer:
        """Publish a query and wait for its answer, which may be an error; raises Transient where none comes at all.

        So it does where the answer is of a version that this client cannot read.
        """
        query, answer = self.ask_later(
            text, subject=subject, domain=domain, deadline_ms=deadline_ms, query_id=query_id
        )
        self.flush()
        try:
            return answer.result(timeout=deadline_ms / 1000 + ANSWER_MARGIN_S)
        except FutureTimeout as error:
            raise no_answer(query.id, deadline_ms / 1000 + ANSWER_MARGIN_S) from error
        finally:
            answer.cancel()

    def ask_later(
        self,
        text: str,
        *,
        subject: str | None = None,
        domain: Domain | None = None,
        deadline_ms: int = 10_000,
        query_id: str | None = None,
        priority: Priority = "normal",
        canary_opt_out: bool = False,
    ) -> tuple[Query, Future[Answer]]:
        """Publish a query and return it with its answer to come; cancel the future to stop waiting.

        Raises InvalidEvent and Transient as `publish` does; the future raises Transient where reading answers fails.
        """
        identity = query_id or self._new_id()
        answer = self._expect(identity)
        traceparent = new_traceparent(os.urandom(24))
        if self._tracer is not None:
            answer.add_done_callback(self._recording(self._tracer, identity, traceparent))
        try:
            query = self.publish(
                text,
                query_id=identity,
                subject=subject,
                domain=domain,
                deadline_ms=deadline_ms,
                priority=priority,
                canary_opt_out=canary_opt_out,
                traceparent=traceparent,
            )
        except BaseException:
            answer.cancel()
            raise
        return query, answer

    def rate(
        self,
        answer: Answer,
        *,
        question: str,
        rater: str,
        rating: Rating | None = None,
        correction: str | None = None,
        feedback_id: str | None = None,
    ) -> Feedback:
        """Publish feedback on an answer that carries a receipt; raises InvalidEvent where it has none."""
        if answer.receipt is None:
            raise InvalidEvent(
                f"answer to {answer.query_id} has no receipt: it was an error, nothing can be rated"
            )
        feedback = Feedback(
            id=feedback_id or self._new_id(),
            query_id=answer.query_id,
            receipt=answer.receipt,
            question=question,
            rater=rater,
            given_at=self._clock.now_ms(),
            rating=rating,
            correction=correction,
        )
        self.give(feedback)
        return feedback

    def give(self, feedback: Feedback) -> None:
        """Publish feedback made elsewhere, such as imported rows with an operator's receipt."""
        self._send(feedback, "feedback", key=feedback.query_id, event_id=feedback.id)

    def change(self, change: DocumentChange) -> None:
        """Publish a document's upsert or delete."""
        key = f"{change.domain}/{change.document_id}"
        self._send(change, "documents", key=key, event_id=f"{change.document_id}.{change.changed_at}")

    def is_reading(self) -> bool:
        """Whether answers are still read; once they are not, every `ask` fails and a new client is needed."""
        with self._lock:
            return self._failure is None

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything published is acknowledged; raises Transient."""
        self._producer.flush(timeout_s)

    def answers(self, timeout_s: float) -> Iterator[Answer]:
        """This client's answers as they come, until none came for `timeout_s`."""
        queue: SimpleQueue[Answer] = SimpleQueue()
        with self._lock:
            self._listeners.append(queue.put)
        try:
            while True:
                try:
                    yield queue.get(timeout=timeout_s)
                except Empty:
                    return
        finally:
            with self._lock:
                self._listeners.remove(queue.put)

    def feedback_status(self, feedback_id: str, timeout_s: float = 10.0) -> FeedbackStatus | None:
        """The last status of a feedback, or None where there is none yet; reads the whole status topic."""
        last: FeedbackStatus | None = None
        with LogReader(self._kafka, topics=[self._topics.name("feedback.status")]) as reader:
            for record in reader.read_to_end(timeout_s):
                status = decode(record, FeedbackStatus)
                if status.feedback_id == feedback_id and (last is None or status.at >= last.at):
                    last = status
        return last

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=10)
        self._producer.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recording(
        self, tracer: Tracer, query_id: str, traceparent: bytes
    ) -> Callable[[Future[Answer]], None]:
        """Records the ask when its answer is there, or is given up."""
        start_us = self._clock.now_us()

        def record(done: Future[Answer]) -> None:
            answer = None if done.cancelled() or done.exception() else done.result()
            error = "no_answer" if answer is None else answer.error.kind if answer.error else None
            tracer.record(
                Hop(
                    "ask",
                    "client",
                    parent=None,
                    own=traceparent,
                    start_us=start_us,
                    end_us=self._clock.now_us(),
                    attributes={"messaging.message.id": query_id},
                    error=error,
                )
            )

        return record

    def _send(
        self, event: Event, topic: str, *, key: str, event_id: str, traceparent: bytes | None = None
    ) -> None:
        value, head = encode(
            event,
            source=f"client/{self._name}",
            event_id=event_id,
            at_ms=self._clock.now_ms(),
            traceparent=traceparent or new_traceparent(os.urandom(24)),
        )
        self._producer.send(Outgoing(self._topics.name(topic), value, key=key.encode(), headers=head))

    def _expect(self, query_id: str) -> Future[Answer]:
        answer: Future[Answer] = Future()
        with self._lock:
            if self._failure is not None:
                raise Transient("the reader of answers has stopped; connect again") from self._failure
            self._waiting[query_id] = answer
        answer.add_done_callback(lambda _done: self._forget(query_id))
        return answer

    def _forget(self, query_id: str) -> None:
        with self._lock:
            self._waiting.pop(query_id, None)

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                for record in self._reader.poll(500, 0.05):
                    self._take(record)
        except Exception as error:  # whoever waits is told; nothing is swallowed
            with self._lock:
                self._failure = error
                waiting = list(self._waiting.values())
            for answer in waiting:
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(Transient(f"reading answers failed: {error}"))
        finally:
            self._reader.close()

    def _fail(self, query_id: str, error: Exception) -> None:
        with self._lock:
            waiting = self._waiting.get(query_id)
        if waiting is not None and not waiting.done() and waiting.set_running_or_notify_cancel():
            waiting.set_exception(error)

    def _take(self, record: Record) -> None:
        if record.header(CLIENT) != self._name.encode():
            return
        try:
            answer = decode(record, Answer)
        except InvalidEvent as error:
            # Such as one of a newer version: whoever waits for it is told, everybody else's go on.
            _log.warning("unreadable answer", reason=str(error))
            why = Transient(f"the answer is there and cannot be read by this version of the client: {error}")
            self._fail((record.key or b"").decode("utf-8", "replace"), why)
            return
        with self._lock:
            waiting = self._waiting.get(answer.query_id)
            listeners = tuple(self._listeners)
        # From here on nobody can cancel it, so that the result is never set on a future given up meanwhile.
        if waiting is not None and not waiting.done() and waiting.set_running_or_notify_cancel():
            waiting.set_result(answer)
        for listener in listeners:
            listener(answer)
