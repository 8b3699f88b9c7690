"""Queries sent, answers received, every id accounted for."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.answers import Answer
from twinloop.bus.settings import KafkaSettings
from twinloop.client.client import Client
from twinloop.demo.material import Question
from twinloop.errors import Transient
from twinloop.topics import TopicCatalogue


@dataclass(frozen=True)
class Asked:
    """One question on its way."""

    query_id: str
    question: Question


class Traffic:
    """One client that asks, in the background at a steady rate and in the foreground in bursts."""

    def __init__(
        self, kafka: KafkaSettings, topics: TopicCatalogue, *, seed: int, rise_per_second: float
    ) -> None:
        self._random = random.Random(seed)
        self._rise = rise_per_second
        self._lock = threading.Lock()
        self.sent: dict[str, Question] = {}
        self.answers: dict[str, Answer] = {}
        self.received: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self.per_second = 1.0
        """Pace of the background traffic; may be changed while it runs, and rises by `rise_per_second` at most."""
        self.client = Client(kafka, topics, name="demo", on_answer=self._on_answer)

    def start(self, questions: Sequence[Question], *, per_second: float) -> None:
        """Ask random ones of these until `stop`; an open loop, whatever the answers do."""
        self.per_second = per_second
        self._thread = threading.Thread(
            target=self._run, args=(tuple(questions),), name="traffic", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the background traffic; raises what ended it early."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
        if self._failure is not None:
            raise self._failure

    def ask_all(
        self, label: str, questions: Sequence[Question], *, per_second: float, timeout_s: float = 60.0
    ) -> dict[str, Answer]:
        """Ask each once, paced, as ids `label-NNNN`; returns the answers by id. Raises Transient on silence."""
        asked = []
        for question in questions:
            asked.append(self._ask(label, question, opt_out=True))
            time.sleep(1.0 / per_second)
        self.client.flush()
        ids = [each.query_id for each in asked]
        self.wait_for(ids, timeout_s)
        with self._lock:
            return {query_id: self.answers[query_id] for query_id in ids}

    def wait_for(self, ids: Sequence[str], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                missing = [query_id for query_id in ids if query_id not in self.answers]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise Transient(
                    f"{len(missing)} queries have no answer after {timeout_s:g} s, such as {missing[0]}"
                )
            time.sleep(0.05)

    def settle(self, timeout_s: float) -> None:
        """Wait until every query sent has its answer, or time is up; what is missing then shows as lost."""
        with self._lock:
            ids = list(self.sent)
        try:
            self.wait_for(ids, timeout_s)
        except Transient:
            return

    def counts(self) -> dict[str, int]:
        """queries_sent, answers, errors, unanswered, duplicates."""
        with self._lock:
            return {
                "queries_sent": len(self.sent),
                "answers": sum(1 for answer in self.answers.values() if answer.error is None),
                "errors": sum(1 for answer in self.answers.values() if answer.error is not None),
                "unanswered": sum(1 for query_id in self.sent if query_id not in self.answers),
                "duplicates": sum(count - 1 for count in self.received.values() if count > 1),
            }

    def errors_by_kind(self) -> dict[str, int]:
        """What users were told instead of an answer, most frequent first."""
        with self._lock:
            told = Counter(answer.error.kind for answer in self.answers.values() if answer.error is not None)
        return dict(told.most_common())

    def close(self) -> None:
        self._stop.set()
        self.client.close()

    def _run(self, questions: Sequence[Question]) -> None:
        due = time.monotonic()
        pace = self.per_second
        try:
            while not self._stop.is_set():
                self._ask("user", self._random.choice(questions), opt_out=False)
                pace = min(self.per_second, pace + self._rise / pace)
                due += 1.0 / pace
                delay = due - time.monotonic()
                if delay > 0:
                    self._stop.wait(delay)
                else:
                    due = time.monotonic()
        except Exception as error:  # reported by stop(); a thread has nobody else to tell
            self._failure = error

    def _ask(self, label: str, question: Question, *, opt_out: bool) -> Asked:
        with self._lock:
            number = self._numbers[label]
            self._numbers[label] += 1
            query_id = f"{label}-{number:05d}"
            self.sent[query_id] = question
        self.client.publish(question.text, query_id=query_id, canary_opt_out=opt_out, deadline_ms=20_000)
        return Asked(query_id, question)

    def _on_answer(self, answer: Answer) -> None:
        with self._lock:
            self.received[answer.query_id] += 1
            self.answers.setdefault(answer.query_id, answer)
