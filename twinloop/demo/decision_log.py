"""The decisions as the demo sees them: followed live, printed, waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from schemas.decisions import Decision, Progress
from twinloop.bus.reader import LogReader
from twinloop.bus.records import TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.codec import decode
from twinloop.errors import Transient
from twinloop.topics import TopicCatalogue

Say = Callable[[str], None]

SAID_EVERY_MS = 5000
"""Progress is logged for each window; of that so much is read by somebody who follows the whole demo."""


class DecisionLog:
    """A thread that reads `decisions` from the beginning; of one epoch only the first record counts."""

    def __init__(self, kafka: KafkaSettings, topics: TopicCatalogue, say: Say) -> None:
        self._say = say
        self.decisions: list[Decision] = []
        self.progress: list[Progress] = []
        self._said_at = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._reader = LogReader(kafka, partitions=[TopicPartition(topics.name("decisions"), 0)])
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
        self._thread.start()

    @property
    def last(self) -> Decision:
        with self._changed:
            return self.decisions[-1]

    def wait(
        self, wanted: Callable[[Decision], bool], *, what: str, timeout_s: float, after: int = 0
    ) -> Decision:
        """The first decision of an epoch above `after` that is wanted; raises Transient naming `what` on time-out."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for decision in self.decisions:
                    if decision.epoch > after and wanted(decision):
                        return decision
                if self._failure is not None:
                    raise Transient(f"the decision log cannot be read: {self._failure}") from self._failure
                left = deadline - time.monotonic()
                if left <= 0:
                    last = self.decisions[-1].line if self.decisions else "no decision yet"
                    raise Transient(f"waited {timeout_s:g} s for {what}; the last decision was: {last}")
                self._changed.wait(min(left, 1.0))

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                for record in self._reader.poll(200, 0.1):
                    kind = record.header("ce_type")
                    if kind == Decision.type.encode():
                        self._add(decode(record, Decision))
                    elif kind == Progress.type.encode():
                        progress = decode(record, Progress)
                        self.progress.append(progress)
                        if progress.at - self._said_at >= SAID_EVERY_MS:
                            self._said_at = progress.at
                            self._say(f"    {progress.phase}: {progress.line}")
        except Exception as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            self._reader.close()

    def _add(self, decision: Decision) -> None:
        with self._changed:
            if self.decisions and decision.epoch <= self.decisions[-1].epoch:
                return
            self.decisions.append(decision)
            self._changed.notify_all()
        self._say(f"  DECISION epoch {decision.epoch}: {decision.line}")
