"""Events, records and logs by hand for the tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from schemas.answers import Answer
from schemas.audit import AuditEntry
from schemas.commands import Action, Command
from schemas.decisions import Decision, Progress
from schemas.event import Event
from twinloop.bus.records import Record
from twinloop.codec import encode

EXAMPLES = Path(__file__).parents[3] / "schemas/examples"


def example(path: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((EXAMPLES / path).read_text(encoding="utf-8"))["value"]
    return value


def decision(**changes: Any) -> Decision:
    return Decision.model_validate(example("decisions/v1/canary.json")).model_copy(update=changes)


def progress(**changes: Any) -> Progress:
    return Progress.model_validate(example("decisions/v1/progress.json")).model_copy(update=changes)


def answer(name: str = "answered") -> Answer:
    return Answer.model_validate(example(f"answers/v1/{name}.json"))


def audit(*, result: str, detail: str) -> AuditEntry:
    return AuditEntry.model_validate({**example("audit/v1/refused.json"), "result": result, "detail": detail})


def order(action: Action = "rollback", nonce: str = "n-77") -> Command:
    return Command(
        nonce=nonce,
        actor="operator",
        action=action,
        reason="wrong dosages",
        issued_at=1_790_000_000_000,
        expires_at=1_790_000_060_000,
        key_id="operator-1",
    )


def record(event: Event, *, offset: int = 0) -> Record:
    value, headers = encode(event, source="test", event_id=f"e-{offset}", at_ms=1_790_000_000_000)
    return Record("topic", 0, offset, b"key", value, headers, 1_790_000_000_000)


class FakeLog:
    """A log that hands out one list of records a poll, then nothing."""

    def __init__(self, *polls: Sequence[Event]) -> None:
        self._polls = [[record(event, offset=at) for at, event in enumerate(events)] for events in polls]

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        return self._polls.pop(0) if self._polls else []

    def read_to_end(self, timeout_s: float = 10.0) -> list[Record]:
        rest, self._polls = self._polls, []
        return [each for records in rest for each in records]

    def __enter__(self) -> FakeLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._polls = []
