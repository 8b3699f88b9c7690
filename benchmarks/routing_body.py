"""The router's work on one batch without Kafka: the shipped parser, decision and emission by the shipped reader."""

from __future__ import annotations

import os
import time

from benchmarks.routing_setup import RULES, RULES_DIGEST, questions
from schemas.event import Domain
from schemas.queries import Query
from schemas.routing import RoutingState
from services.router.core.micro_batch import Situation, decide
from services.router.core.overload import OverloadPolicy
from services.router.emission import RANDOM_BYTES, Emitter, Names
from services.router.parsing import Parser
from twinloop.bus.records import Record
from twinloop.codec import encode
from twinloop.routing.reader import StateReader
from twinloop.routing.rules_book import RulesBook
from twinloop.topics import TopicCatalogue


class Body:
    """The router's work on one batch, without Kafka."""

    def __init__(self, state: RoutingState, *, batch: int) -> None:
        self._rules = RulesBook({RULES_DIGEST: RULES}.__getitem__)
        self._rules.prepare(state)
        self._emitter = Emitter(Names.of(TopicCatalogue.load()), router="bench", source="router/bench/0")
        asked = questions()
        self._parser = Parser(max_bytes=1 << 20)
        self._records = [_record(number, *asked[number]) for number in range(batch)]

    def route(self, reader: StateReader | None, snapshot: RoutingState | None) -> int | None:
        """Routes the batch by the snapshot, or by what the reader says; the epoch used, None where it holds."""
        if reader is not None:
            reader.begin()
        batch = self._parser.parse_plain(self._records)
        assert batch is not None
        state: RoutingState | None = snapshot
        if reader is not None:
            state = reader.finish(time.monotonic()).state
        if state is None:
            return None
        now_ms = time.time_ns() // 1_000_000
        situation = Situation(
            state=state,
            chooser=self._rules.chooser,
            seen=lambda _: (),
            now_ms=now_ms,
            policy=OverloadPolicy(),
        )
        decisions = decide(batch, situation)
        random_bytes = os.urandom(RANDOM_BYTES * len(decisions.routes))
        self._emitter.emit(decisions, batch, now_ms=now_ms, random_bytes=random_bytes)
        return state.epoch


def _record(number: int, domain: Domain, text: str) -> Record:
    query = Query(
        id=f"q-{number}",
        text=text,
        domain=domain if number % 5 == 0 else None,
        asked_at=time.time_ns() // 1_000_000,
        subject=f"user-{number}",
        deadline_ms=600_000,
    )
    value, headers = encode(query, source="benchmark", event_id=query.id, at_ms=query.asked_at)
    return Record(
        "queries", number % 4, number, query.sticky_subject.encode(), value, headers, query.asked_at
    )
