"""What an inference worker counts."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.inference.core.answers import Produced
from services.inference.core.circuit_breaker import CIRCUIT_STATES, CircuitState
from twinloop.routing.stamp import Stamp

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)


class InferenceMetrics:
    """Counters of one worker in one registry; labels are bounded: domain, slot, purpose, outcome."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.answers = Counter(
            "twinloop_answers",
            "Queries that ended at a worker, by how they ended.",
            ["domain", "slot", "purpose", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "twinloop_answer_duration_seconds",
            "From assignment to answer.",
            ["domain", "slot", "purpose"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.labels = Counter(
            "twinloop_labelled_answers",
            "Answers by the toxicity classifier's label, toxic or clean.",
            ["domain", "slot", "purpose", "label"],
            registry=registry,
        )
        self.epoch = Gauge(
            "twinloop_inference_epoch", "Routing epoch this worker acts on.", registry=registry
        )
        self.forwarded = Counter(
            "twinloop_forwarded_queries",
            "Queries sent on because the routing state had moved.",
            registry=registry,
        )
        self.redecided = Counter(
            "twinloop_redecided_batches",
            "Batches aborted before their commit because the routing state moved.",
            registry=registry,
        )
        self.retries = Counter(
            "twinloop_inference_retries", "Transactions undone and tried again.", registry=registry
        )
        self.holds = Counter(
            "twinloop_inference_holds", "Reads of the routing state that had no answer.", registry=registry
        )
        self.dead_letters = Counter(
            "twinloop_inference_dead_letters", "Routed records nobody could read.", registry=registry
        )
        self.circuits = Gauge(
            "twinloop_inference_circuits",
            "Releases with which the model failed lately, by the state of their circuit breaker.",
            ["slot", "state"],
            registry=registry,
        )
        self.circuit_transitions = Counter(
            "twinloop_inference_circuit_transitions",
            "Changes of a release's circuit breaker, by the state it came to.",
            ["slot", "state"],
            registry=registry,
        )

    def answered(self, stamp: Stamp, produced: Produced, milliseconds: int) -> None:
        outcome = produced.error.kind if produced.error else "answered"
        self.answers.labels(stamp.domain, stamp.slot, stamp.purpose, outcome).inc()
        duration = self.duration.labels(stamp.domain, stamp.slot, stamp.purpose)
        duration.observe(max(0, milliseconds) / 1000)

    def labelled(self, stamp: Stamp, *, is_toxic: bool) -> None:
        label = "toxic" if is_toxic else "clean"
        self.labels.labels(stamp.domain, stamp.slot, stamp.purpose, label).inc()

    def show_circuits(self, slot: str, count: Mapping[CircuitState, int]) -> None:
        for state in CIRCUIT_STATES:
            self.circuits.labels(slot, state).set(count.get(state, 0))
