"""A file of events for the what-if: JSON Lines, each `{"topic": .., "time": .., "event": {..}}`.

`topic` is a declared name with or without prefix, `time` milliseconds since 1970 or RFC 3339, `event` the published
JSON of that topic's event type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
from pydantic import ValidationError

from schemas.answers import Evaluation
from schemas.assignments import AssignmentBatch
from schemas.commands import Command
from schemas.decisions import Decision
from schemas.event import Event
from schemas.feedback import Feedback, FeedbackStatus
from schemas.outcomes import OutcomeBatch
from schemas.releases import ReleaseProposed
from twinloop.errors import ConfigError

EVENTS: dict[str, type[Event]] = {
    "assignments": AssignmentBatch,
    "outcomes": OutcomeBatch,
    "evaluations": Evaluation,
    "feedback": Feedback,
    "feedback.status": FeedbackStatus,
    "releases": ReleaseProposed,
    "commands": Command,
    "decisions": Decision,
}
"""What a what-if reads; `decisions` only tell which share of traffic an epoch gave the shadow."""


@dataclass(frozen=True)
class EventLine:
    """One line that could be read."""

    number: int
    topic: str
    at: int
    """Milliseconds since 1970 UTC."""
    event: Event


@dataclass(frozen=True)
class EventFile:
    """All lines in order of time, and what had to be left out."""

    lines: tuple[EventLine, ...]
    refused: tuple[str, ...]
    """Events that the running system would have sent to the dead letters."""


def read_event_file(path: Path) -> EventFile:
    """Every line, sorted by time (lines of one time keep their order).

    Raises ConfigError naming file and line where a line has no topic, time or event, or a topic is not known.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    lines: list[EventLine] = []
    refused: list[str] = []
    for number, topic, at, value in _envelopes(path, data):
        try:
            event = EVENTS[topic].model_validate_json(orjson.dumps(value))
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
            refused.append(
                f"{path}:{number}: {topic}: {'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}"
            )
        else:
            lines.append(EventLine(number, topic, at, event))
    return EventFile(tuple(sorted(lines, key=lambda line: line.at)), tuple(refused))


def _envelopes(path: Path, data: bytes) -> Iterator[tuple[int, str, int, object]]:
    for number, raw in enumerate(data.splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            line = orjson.loads(raw)
            named, time, value = str(line["topic"]), line["time"], line["event"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ConfigError(
                f'{path}:{number}: is not {{"topic": .., "time": .., "event": {{..}}}}: {error}'
            ) from error
        topic = named if named in EVENTS else named.partition(".")[2]
        if topic not in EVENTS:
            raise ConfigError(f"{path}:{number}: topic {named!r} is none of {', '.join(sorted(EVENTS))}")
        try:
            yield number, topic, _milliseconds(time), value
        except ValueError as error:
            raise ConfigError(
                f"{path}:{number}: time: {error}; write milliseconds since 1970 or RFC 3339"
            ) from error


def _milliseconds(time: object) -> int:
    if isinstance(time, int) and not isinstance(time, bool) and time > 0:
        return time
    if isinstance(time, str):
        moment = datetime.fromisoformat(time.replace("Z", "+00:00"))
        if moment.tzinfo is None:
            raise ValueError(f"{time!r} names no time zone")
        return round(moment.timestamp() * 1000)
    raise ValueError(f"{time!r} is no time")
