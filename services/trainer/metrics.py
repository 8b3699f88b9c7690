"""Metrics of the trainer; labels are bounded: domains, dispositions and reason codes, never ids or raters."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_TRAINING_SECONDS = (1, 2, 5, 10, 20, 40, 60, 120, 300, 600, 1800)

OUTCOMES = ("proposed", "failed")
READ_TOPICS = ("feedback", "documents", "decisions", "commands", "changes")


class TrainerMetrics:
    """One set a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._feedback = Counter(
            "twinloop_feedback_events",
            "Statuses told about feedback.",
            ("domain", "disposition", "reason"),
            registry=registry,
        )
        self._training = Histogram(
            "twinloop_training_duration_seconds",
            "From the cut of a dataset to its end.",
            ("outcome",),
            buckets=_TRAINING_SECONDS,
            registry=registry,
        )
        self._running = Gauge("twinloop_training_running", "1 while a training runs.", registry=registry)
        self._pending = Gauge(
            "twinloop_feedback_pending_rows",
            "Corrections that wait for a dataset.",
            ("domain",),
            registry=registry,
        )
        self._replay = Gauge(
            "twinloop_replay_rows", "Rows in the replay buffer.", ("domain",), registry=registry
        )
        self._documents = Gauge(
            "twinloop_documents_pending",
            "Document changes that wait for a release.",
            ("domain",),
            registry=registry,
        )
        self._dead_letters = Counter(
            "twinloop_trainer_dead_letters", "Records that could not be read.", ("topic",), registry=registry
        )
        # A series has to be there at 0 before its first rise, or `increase` does not see that one.
        for outcome in OUTCOMES:
            self._training.labels(outcome)
        for topic in READ_TOPICS:
            self._dead_letters.labels(topic)

    def feedback(self, *, domain: str | None, disposition: str, reason: str | None) -> None:
        """One status; of a reason only its code counts, what follows a colon names single rows."""
        code = (reason or "").split(":")[0]
        self._feedback.labels(domain or "unknown", disposition, code).inc()

    def training(self, *, outcome: str, seconds: float) -> None:
        """One run ended as `proposed` or `failed`."""
        self._training.labels(outcome).observe(seconds)

    def is_training(self, is_running: bool) -> None:
        self._running.set(int(is_running))

    def waiting(
        self, *, rows: Mapping[str, int], documents: Mapping[str, int], replay: Mapping[str, int]
    ) -> None:
        """What waits and what is rehearsed, by domain."""
        for gauge, counts in ((self._pending, rows), (self._documents, documents), (self._replay, replay)):
            for domain, count in counts.items():
                gauge.labels(domain).set(count)

    def dead_letter(self, *, topic: str) -> None:
        self._dead_letters.labels(topic).inc()
