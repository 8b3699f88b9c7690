"""Decisions as records: routed queries, assignment rows, the de-duplication changelog, error answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.answers import Answer, AnswerError
from schemas.assignments import AssignmentBatch
from schemas.event import SLOTS, Slot
from schemas.headers import CLIENT, STAMP
from schemas.seen_ids import SeenIds
from services.router.core.micro_batch import Decisions, Refusal
from services.router.core.query import ParsedQuery
from services.router.core.rows import Route, Seen, encode_seen, spell, spell_batch
from services.router.parsing import Intake
from twinloop.bus.cloudevents import child_traceparent, event_headers, new_traceparents
from twinloop.bus.records import Headers, Outgoing, Record
from twinloop.codec import encode
from twinloop.routing.stamp import OWN_PREFIX
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
        rows: dict[int, list[str]] = {}
        sent = self._routed(decisions.routes, batch, random_bytes, rows)
        for refusal in decisions.refusals:
            intake = batch[refusal.position]
            sent.append(self._error_answer(refusal, intake.record, intake.query, now_ms=now_ms))
        for origin, spelled in rows.items():
            sent.append(self._assignments(origin, spelled, first=_first(decisions.routes, batch, origin)))
        for origin, ids in decisions.ended.items():
            sent.append(self._seen_ids(Seen(origin, now_ms, ids)))
        return sent

    def _routed(
        self,
        routes: Sequence[Route],
        batch: Sequence[Intake],
        random_bytes: bytes,
        rows: dict[int, list[str]],
    ) -> list[Outgoing]:
        """The routed queries; their rows are added to `rows`, by origin."""
        topics, sent = self._topics.slots, []
        spelled = spell(routes, [intake.query for intake in batch])
        for number, (route, trace, (stamp, row)) in enumerate(
            zip(routes, new_traceparents(random_bytes), spelled, strict=True)
        ):
            way, intake = route.way, batch[route.position]
            record, query, origin = intake.record, intake.query, way.origin
            if intake.is_plain:
                headers: Headers = (*record.headers, ("traceparent", trace), (STAMP, stamp))
            else:
                span = random_bytes[RANDOM_BYTES * number : RANDOM_BYTES * (number + 1)]
                headers = routed_headers(record.headers, (STAMP, stamp), span)
            if origin in rows:
                rows[origin].append(row)
            else:
                rows[origin] = [row]
            key = (query.subject or query.id).encode()
            sent.append(
                Outgoing(topics[way.slot], record.value, key, headers, origin, None, intake.routed_size)
            )
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
            extra=((CLIENT, query.client.encode()),),
        )
        return Outgoing(self._topics.answers, value, query.id.encode(), headers)

    def _seen_ids(self, seen: Seen) -> Outgoing:
        first = seen.ids[0]
        headers = event_headers(id=f"{first}/{seen.seen_at}", type=SeenIds.type, source=self._source)
        key = f"{seen.origin}/{first}".encode()
        return Outgoing(self._topics.seen_ids, encode_seen(seen), key, headers, seen.origin)

    def _assignments(self, origin: int, rows: Sequence[str], *, first: str) -> Outgoing:
        headers = event_headers(id=first, type=AssignmentBatch.type, source=self._source)
        value = spell_batch(origin, self._router, rows)
        return Outgoing(self._topics.assignments, value, b"%d" % origin, headers, origin)


def _first(routes: Sequence[Route], batch: Sequence[Intake], origin: int) -> str:
    """Names the first row of an origin: no other record of assignments begins with that query at that epoch."""
    route = next(route for route in routes if route.way.origin == origin)
    return f"{batch[route.position].query.id}/{route.way.epoch}"


def routed_headers(found: Headers, stamp: tuple[str, bytes], random_bytes: bytes) -> Headers:
    """The producer's own headers, a child span, and the stamp; headers a producer forged are left behind."""
    kept: list[tuple[str, bytes]] = []
    parent: bytes | None = None
    for pair in found:
        if pair[0] == "traceparent":
            parent = pair[1]
        elif not pair[0].startswith(OWN_PREFIX):
            kept.append(pair)
    kept.append(("traceparent", child_traceparent(parent, random_bytes)))
    return (*kept, stamp)
