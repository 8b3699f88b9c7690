"""A running installation with users, to be disturbed and watched; what was expected and what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from schemas.answers import Answer
from schemas.routing import RoutingState
from twinloop.bus.reader import LogReader
from twinloop.cli.connection import Connection
from twinloop.demo.decision_log import DecisionLog
from twinloop.demo.material import Material, Question
from twinloop.demo.teaching import Teacher
from twinloop.demo.traffic import Traffic
from twinloop.errors import Transient
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.stack.installation import Installation
from twinloop.topics import DEAD_LETTERS

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finding:
    """One thing a defence promises."""

    expected: str
    seen: str
    held: bool


@dataclass(frozen=True)
class Counted:
    """What became of every query of a run."""

    sent: int
    answers: int
    errors: int
    dead_letters: int
    lost: int
    duplicates: int


class Drill:
    """Users, decision log and orders of one installation; `close` ends what it started, in reverse order."""

    def __init__(self, installation: Installation, material: Material, say: Say, *, seed: int) -> None:
        self.installation, self.material, self._say = installation, material, say
        self.connection = Connection(installation.plan.home.root, None)
        self.findings: list[Finding] = []
        self.resources = ExitStack()
        """Ended after the installation: what its processes still need while they stop."""
        self._started = time.monotonic()
        self.log = DecisionLog(installation.kafka, installation.topics, say)
        self.traffic = Traffic(
            installation.kafka, installation.topics, seed=seed, rise_per_second=material.rise_per_second
        )
        self.teacher = Teacher(self.connection, self.traffic, say)
        self._routing = RedisRoutingStore(self.connection.settings.redis)

    def step(self, line: str) -> None:
        self._say(f"[{time.monotonic() - self._started:5.0f} s] {line}")

    def find(self, expected: str, *, seen: str, held: bool) -> None:
        """Note what a defence promises and what was seen of it."""
        self.findings.append(Finding(expected, seen, held))
        self._say(f"    {'held' if held else 'NOT HELD'}: {expected}; seen: {seen}")

    def ask(self, label: str, questions: Sequence[Question]) -> dict[str, Answer]:
        return self.traffic.ask_all(label, questions, per_second=self.material.asked_per_second)

    def routing(self) -> RoutingState | None:
        """The state in Redis now, whoever wrote it; None where there is no key. Raises Transient."""
        raw = self._routing.read()
        return None if raw is None else RoutingState.model_validate_json(raw)

    def wait_until(self, is_so: Callable[[], bool], *, what: str, timeout_s: float) -> float:
        """Seconds until it was so; raises Transient naming `what` on time-out."""
        began = time.monotonic()
        while not is_so():
            if time.monotonic() - began > timeout_s:
                raise Transient(f"waited {timeout_s:g} s for {what}")
            time.sleep(0.05)
        return time.monotonic() - began

    def count(self) -> Counted:
        """End the traffic, wait for what is still on its way, and account for every query."""
        self.traffic.stop()
        self.traffic.settle(30)
        counts = self.traffic.counts()
        topic = self.installation.topics.name(DEAD_LETTERS)
        with LogReader(self.installation.kafka, topics=[topic]) as reader:
            dead = len(reader.read_to_end())
        return Counted(
            sent=counts["queries_sent"],
            answers=counts["answers"],
            errors=counts["errors"],
            dead_letters=dead,
            lost=max(0, counts["unanswered"] - dead),
            duplicates=counts["duplicates"],
        )

    def close(self) -> None:
        self.traffic.close()
        self.log.close()
        self._routing.close()
