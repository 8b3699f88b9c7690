"""How this worker's events become records: names, keys, partitions, headers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from schemas import headers
from schemas.answers import Answer, Evaluation
from schemas.assignments import AssignmentBatch
from schemas.outcomes import OutcomeBatch
from services.inference.core.plan import Forwarding
from services.inference.core.routed_query import RoutedQuery
from twinloop.bus.cloudevents import child_traceparent
from twinloop.bus.dead_letter import dead_letter
from twinloop.bus.records import Outgoing, Record
from twinloop.codec import encode
from twinloop.errors import TwinLoopError
from twinloop.routing.stamp import Stamp, foreign_headers
from twinloop.topics import DEAD_LETTERS, TopicCatalogue

RandomBytes = Callable[[int], bytes]


class Publisher:
    """Builds the worker's outgoing records; sends nothing itself."""

    def __init__(
        self,
        topics: TopicCatalogue,
        *,
        worker: str,
        incarnation_of_process: str,
        random: RandomBytes = os.urandom,
    ) -> None:
        self._topics, self._worker, self._random = topics, worker, random
        self._source = f"inference/{worker}/{incarnation_of_process}"
        self._count = 0

    def answer(self, routed: RoutedQuery, answer: Answer) -> Outgoing:
        """A user's answer goes to `answers`, everything else to `evaluations`; both are keyed by the query."""
        topic = "evaluations" if isinstance(answer, Evaluation) else "answers"
        value, head = encode(
            answer,
            source=self._source,
            event_id=f"{routed.query.id}.{answer.hops}",
            at_ms=answer.answered_at,
            traceparent=child_traceparent(routed.traceparent, self._random(24)),
            extra=((headers.CLIENT, routed.query.client.encode()),),
        )
        return Outgoing(self._topics.name(topic), value, key=routed.query.id.encode(), headers=head)

    def forwarded(self, forwarding: Forwarding, stamp: Stamp) -> Outgoing:
        """The original bytes under a new stamp, to the same origin partition of the other slot's topic."""
        record = forwarding.routed.record
        return Outgoing(
            self._topics.name(f"queries.{stamp.slot}"),
            record.value,
            key=record.key,
            headers=(*foreign_headers(record.headers), *stamp.headers()),
            partition=stamp.origin,
        )

    def assignments(self, batches: Iterable[AssignmentBatch], *, at_ms: int) -> list[Outgoing]:
        return [self._by_origin("assignments", batch, at_ms) for batch in batches]

    def outcomes(self, batches: Iterable[OutcomeBatch], *, at_ms: int) -> list[Outgoing]:
        return [self._by_origin("outcomes", batch, at_ms) for batch in batches]

    def dead_letter(self, record: Record, error: TwinLoopError, *, at_ms: int) -> Outgoing:
        return dead_letter(
            record, topic=self._topics.name(DEAD_LETTERS), error=error, service=self._source, at_ms=at_ms
        )

    def _by_origin(self, topic: str, batch: AssignmentBatch | OutcomeBatch, at_ms: int) -> Outgoing:
        self._count += 1
        value, head = encode(batch, source=self._source, event_id=f"{topic}.{self._count}", at_ms=at_ms)
        key = str(batch.origin).encode()
        return Outgoing(self._topics.name(topic), value, key=key, headers=head, partition=batch.origin)
