"""How long a write took to reach every process: from the start of the Redis write to the last one that acts on it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from schemas.gate_inputs import Applied, GateInput
from schemas.readiness import Readiness
from twinloop.bus.reader import LogReader
from twinloop.bus.records import TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.codec import decode
from twinloop.errors import Transient
from twinloop.topics import TopicCatalogue


@dataclass(frozen=True)
class Propagation:
    """Milliseconds from the start of the write; None where no such process reported."""

    routers_ms: float | None
    workers_ms: float | None


def propagation_of(
    kafka: KafkaSettings, topics: TopicCatalogue, epoch: int, *, within_s: float = 30.0
) -> Propagation:
    """Worked out from what was logged about one epoch; raises Transient where its write is not logged in time."""
    started = _write_started_us(kafka, topics, epoch, within_s=within_s)
    applied: dict[str, dict[str, int]] = {"router": {}, "inference": {}}
    with _reader(kafka, topics, "readiness") as reader:
        for record in reader.read_to_end():
            seen = decode(record, Readiness)
            if seen.epoch == epoch:
                applied[seen.service].setdefault(seen.worker, seen.applied_at_us)
    return Propagation(_last_ms(applied["router"], started), _last_ms(applied["inference"], started))


def _write_started_us(kafka: KafkaSettings, topics: TopicCatalogue, epoch: int, *, within_s: float) -> int:
    """A decision is read before its write is logged: the log is read on until it says so."""
    last = time.monotonic() + within_s
    with _reader(kafka, topics, "gate-inputs") as reader:
        while True:
            for record in reader.read_to_end():
                body = decode(record, GateInput).body
                if isinstance(body, Applied) and body.epoch == epoch and body.result != "refused":
                    return body.started_at_us
            if time.monotonic() > last:
                name = topics.name("gate-inputs")
                raise Transient(f"no write of epoch {epoch} was logged in {name} within {within_s:g} s")
            time.sleep(0.2)


def _last_ms(applied: dict[str, int], started_us: int) -> float | None:
    return (max(applied.values()) - started_us) / 1000 if applied else None


def _reader(kafka: KafkaSettings, topics: TopicCatalogue, topic: str) -> LogReader:
    return LogReader(kafka, partitions=[TopicPartition(topics.name(topic), 0)])
