"""A user process that asks at a steady pace and says how long each query took to come out behind a hop, committed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from benchmarks.routing_setup import questions
from schemas.queries import Query
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.codec import encode
from twinloop.topics import TopicCatalogue

PER_S = 200.0
"""Queries a second; a rate at which the hop waits for queries and not they for it."""

_spawn = multiprocessing.get_context("spawn")


def ask_steadily(kafka: KafkaSettings, prefix: str, count: int, found: Any) -> None:
    """A user process: milliseconds from publishing each query to reading it, committed, behind the hop."""
    topics = TopicCatalogue.load(prefix=prefix)
    producer, asked = IdempotentProducer(kafka), questions()
    routed = [topics.name("queries.blue"), topics.name("queries.green")]
    sent: dict[bytes, float] = {}
    times: list[float] = []
    with LogReader(kafka, topics=routed, start="end") as reader:
        reader.poll(1, 1.0)
        started = time.perf_counter()
        while len(times) < count and time.perf_counter() - started < count / PER_S + 30:
            while len(sent) < count and time.perf_counter() - started >= len(sent) / PER_S:
                number = len(sent)
                value, headers = _query(number, asked[number % len(asked)][1])
                key = f"user-{number}".encode()
                sent[key] = time.perf_counter()
                partition = number % topics.partitions("queries")
                producer.send(Outgoing(topics.name("queries"), value, key, headers, partition))
            records = reader.poll(500, 0.001)
            now = time.perf_counter()
            times += [1000 * (now - sent[record.key or b""]) for record in records]
    producer.close(10)
    found.put([round(each, 3) for each in times])


def _query(number: int, text: str) -> tuple[bytes, Any]:
    now_ms = time.time_ns() // 1_000_000
    query = Query(id=f"q-{number}", text=text, asked_at=now_ms, subject=f"user-{number}", deadline_ms=600_000)
    return encode(query, source="benchmark", event_id=query.id, at_ms=now_ms)


def end_to_end(kafka: KafkaSettings, prefix: str, turn: Callable[[], object], *, count: int) -> list[float]:
    """Milliseconds of `count` queries while this process makes turn after turn of the hop between the topics.

    The first tenth, while the group forms, is left out.
    """
    found = _spawn.Queue()
    user = _spawn.Process(target=ask_steadily, args=(kafka, prefix, count, found), daemon=True)
    user.start()
    while found.empty():
        assert user.is_alive() or not found.empty(), "the user process has ended early"
        turn()
    times: list[float] = found.get()
    user.join(10)
    assert len(times) == count, f"{len(times)} of {count} queries came through"
    return times[count // 10 :]
