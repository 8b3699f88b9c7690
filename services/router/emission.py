"""Decisions as records: routed queries, assignment rows, the de-duplication changelog, error answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas import headers as names
from schemas.answers import Answer, AnswerError
from schemas.assignments import AssignmentBatch
from schemas.event import SLOTS, Slot
from schemas.seen_ids import SeenIds
from services.router.core.micro_batch import Decisions, Refusal, Route
from services.router.core.query import ParsedQuery
from services.router.core.rows import Batch, Seen, encode_batch, encode_seen
from services.router.parsing import Intake
from twinloop.bus.cloudevents import child_traceparent, event_headers, new_traceparents
from twinloop.bus.records import Headers, Outgoing, Record
from twinloop.codec import encode
from twinloop.routing.stamp import OWN_PREFIX, Stamp
from twinloop.topics import TopicCatalogue

RANDOM_BYTES = 24
"""Random bytes one child span takes."""

_DETAILS = {
    "deadline": "the deadline passed before the query was routed",
    "shed": "refused under overload; ask again later or with a longer deadline",
}


class Names(msgspec.Struct, frozen=True):
    """Full names of the topics the router writes."""

    slots: dict[Slot, str]
    assignments: str
    seen_ids: str
    answers: str
    dead_letters: str

    @classmethod
    def of(cls, topics: TopicCatalogue) -> Names:
        return cls(
            slots={slot: topics.name(f"queries.{slot}") for slot in SLOTS},
            assignments=topics.name("assignments"),
            seen_ids=topics.name("seen-ids"),
            answers=topics.name("answers"),
            dead_letters=topics.name("dead-letters"),
        )


class Emitter:
    """Turns decisions about a batch into what is sent in its transaction."""

    def __init__(self, topics: Names, *, router: str, source: str) -> None:
        """`router` names the process among its peers, `source` this very run of it."""
        self._topics = topics
        self._router = router
        self._source = source

    def emit(
        self,
        decisions: Decisions,
        batch: Sequence[Intake],
        *,
        now_ms: int,
        random_bytes: bytes,
    ) -> list[Outgoing]:
        """Records in the order they are sent; `batch` is what the decisions' positions count.

        `random_bytes` holds 24 bytes a route.
        """
        sent = self._routed(decisions.routes, batch, random_bytes)
        for refusal in decisions.refusals:
            intake = batch[refusal.position]
            sent.append(self._error_answer(refusal, intake.record, intake.query, now_ms=now_ms))
        for origin, rows in decisions.rows.items():
            sent.append(self._assignments(Batch(origin, self._router, rows)))
        for origin, ids in decisions.ended.items():
            sent.append(self._seen_ids(Seen(origin, now_ms, ids)))
        return sent

    def _routed(
        self, routes: Sequence[Route], batch: Sequence[Intake], random_bytes: bytes
    ) -> list[Outgoing]:
        topics, sent = self._topics.slots, []
        traces = new_traceparents(random_bytes)
        for number, route in enumerate(routes):
            stamp, intake = route.stamp, batch[route.position]
            record, query = intake.record, intake.query
            if intake.is_plain:
                headers: Headers = (*record.headers, ("traceparent", traces[number]), *stamp.headers())
            else:
                span = random_bytes[RANDOM_BYTES * number : RANDOM_BYTES * (number + 1)]
                headers = routed_headers(record.headers, stamp, span)
            key, size = (query.subject or query.id).encode(), intake.routed_size
            sent.append(Outgoing(topics[stamp.slot], record.value, key, headers, stamp.origin, None, size))
        return sent

    def _error_answer(self, refusal: Refusal, record: Record, query: ParsedQuery, *, now_ms: int) -> Outgoing:
        answer = Answer(
            query_id=query.id,
            answered_at=now_ms,
            error=AnswerError(kind=refusal.kind, detail=_DETAILS[refusal.kind]),
            domain=query.domain,
        )
        value, headers = encode(
            answer,
            source=self._source,
            event_id=query.id,
            at_ms=now_ms,
            traceparent=record.header("traceparent"),
            extra=((names.CLIENT, query.client.encode()),),
        )
        return Outgoing(self._topics.answers, value, query.id.encode(), headers)

    def _seen_ids(self, seen: Seen) -> Outgoing:
        first = seen.ids[0]
        headers = event_headers(id=f"{first}/{seen.seen_at}", type=SeenIds.type, source=self._source)
        key = f"{seen.origin}/{first}".encode()
        return Outgoing(self._topics.seen_ids, encode_seen(seen), key, headers, seen.origin)

    def _assignments(self, batch: Batch) -> Outgoing:
        first = batch.rows[0]
        headers = event_headers(
            id=f"{first.id}/{first.epoch}",
            type=AssignmentBatch.type,
            source=self._source,
        )
        key = b"%d" % batch.origin
        return Outgoing(self._topics.assignments, encode_batch(batch), key, headers, batch.origin)


def routed_headers(found: Headers, stamp: Stamp, random_bytes: bytes) -> Headers:
    """The producer's own headers, a child span, and the stamp; headers a producer forged are left behind."""
    kept: list[tuple[str, bytes]] = []
    parent: bytes | None = None
    for pair in found:
        if pair[0] == "traceparent":
            parent = pair[1]
        elif not pair[0].startswith(OWN_PREFIX):
            kept.append(pair)
    kept.append(("traceparent", child_traceparent(parent, random_bytes)))
    return (*kept, *stamp.headers())
