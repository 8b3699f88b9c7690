"""What a change is replayed over: the newest recorded queries and the questions of the examination."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from schemas.event import Domain, Identifier
from schemas.queries import Query
from twinloop.bus.reader import LogReader
from twinloop.bus.settings import KafkaSettings
from twinloop.changes.route_replay import Question
from twinloop.codec import decode
from twinloop.errors import ConfigError, InvalidEvent
from twinloop.topics import TopicCatalogue

_READ_TIMEOUT_S = 30.0


class _Probe(BaseModel):
    """The part of a probe that decides where it goes; what a right answer is stays with the gatekeeper."""

    model_config = ConfigDict(extra="ignore")

    id: Identifier
    question: Annotated[str, StringConstraints(min_length=1)]
    domain: Domain | None = None


def newest_queries(kafka: KafkaSettings, topics: TopicCatalogue, limit: int) -> list[Question]:
    """The last so many queries of the topic, evenly from its partitions; raises Transient."""
    if limit == 0:
        return []
    topic = topics.name("queries")
    with LogReader(kafka, topics=[topic], start="end") as reader:
        ends = reader.high_watermarks()
    share = -(-limit // len(ends))
    offsets = {source: max(0, end - share) for source, end in ends.items()}
    found: list[tuple[int, Question]] = []
    with LogReader(kafka, topics=[topic], offsets=offsets) as reader:
        for record in reader.read_to_end(_READ_TIMEOUT_S):
            try:
                query = decode(record, Query)
            except InvalidEvent:
                continue  # the router dead-letters it
            found.append((record.timestamp_ms, Question(query.id, query.text, query.domain)))
    found.sort(key=lambda each: (each[0], each[1].id))
    return [question for _, question in found[-limit:]]


def probe_questions(path: Path | None) -> list[Question]:
    """Questions and domains of the gatekeeper's probes; raises ConfigError naming the line at fault."""
    if path is None:
        return []
    questions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"trainer.changes.probes_file: {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            probe = _Probe.model_validate(json.loads(line))
        except (ValueError, ValidationError) as error:
            raise ConfigError(f"{path}, line {number}: no probe: it needs id and question") from error
        questions.append(Question(probe.id, probe.question, probe.domain))
    return questions
