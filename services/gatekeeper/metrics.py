"""What a gatekeeper counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.decisions import Decision, GateProgress, Progress
from schemas.event import SLOTS, Slot
from schemas.gate_inputs import Applied, RedisSeen
from services.gatekeeper.core.state import Bake, JudgeState, Mirroring

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
READ_TOPICS = (
    "assignments",
    "outcomes",
    "commands",
    "releases",
    "readiness",
    "evaluations",
    "feedback.status",
    "gate-inputs",
)
WEBHOOK_RESULTS = ("taken", "refused", "given_up", "feed_failed")
PHASES = ("steady", "qa", "canary", "promoting", "bake")


class GatekeeperMetrics:
    """Counters of one gatekeeper in one registry; labels are bounded: kind, result, phase, status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "twinloop_decisions", "Decisions by kind and reason.", ["kind", "reason"], registry=registry
        )
        self.installs = Counter(
            "twinloop_routing_installs",
            "Writes of the routing key, by result.",
            ["result"],
            registry=registry,
        )
        self.install_seconds = Histogram(
            "twinloop_routing_install_seconds",
            "Duration of the one atomic write, its fsync included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.inputs = Counter("twinloop_gate_inputs", "Records folded, by kind.", ["kind"], registry=registry)
        self.epoch = Gauge("twinloop_decided_epoch", "The last decided routing epoch.", registry=registry)
        self.phase = Gauge("twinloop_phase", "1 for the phase in force.", ["phase"], registry=registry)
        self.canary_share = Gauge(
            "twinloop_canary_share_ratio", "Share of subjects on the shadow, of 1.", registry=registry
        )
        self.gate_evidence = Gauge(
            "twinloop_canary_evidence_ratio",
            "A gate's e-value over the one that decides, of the running canary; 1 and more decides.",
            ["kind", "gate"],
            registry=registry,
        )
        self.gate_share = Gauge(
            "twinloop_canary_gate_ratio",
            "Measured share of errors or of toxic answers in the running canary, by arm.",
            ["gate", "arm"],
            registry=registry,
        )
        self.gate_seconds = Gauge(
            "twinloop_canary_p95_seconds",
            "Measured 95th percentile of latency in the running canary, by arm.",
            ["arm"],
            registry=registry,
        )
        self.canary_units = Gauge(
            "twinloop_canary_units",
            "Counted units of the running canary, by arm.",
            ["arm"],
            registry=registry,
        )
        self.mirror_coverage = Gauge(
            "twinloop_mirror_coverage_ratio",
            "Share of mirrored copies that came back, of 1, while copies are judged, by stage.",
            ["stage"],
            registry=registry,
        )
        self.mirror_copies = Gauge(
            "twinloop_mirror_copies",
            "Mirrored copies of the running stage whose windows are closed, by what became of them.",
            ["stage", "result"],
            registry=registry,
        )
        self.active_slot = Gauge(
            "twinloop_active_slot", "1 for the slot whose release serves.", ["slot"], registry=registry
        )
        self.ready_workers = Gauge(
            "twinloop_ready_workers",
            "Live inference workers that can answer with the release of their slot.",
            ["slot"],
            registry=registry,
        )
        self.undurable = Gauge(
            "twinloop_routing_undurable",
            "1 while the store has not proven that the state in force is durable.",
            registry=registry,
        )
        self.leading = Gauge("twinloop_gatekeeper_leading", "1 where this instance acts.", registry=registry)
        self.lag = Gauge(
            "twinloop_gate_inputs_lag_records", "Records logged and not folded yet.", registry=registry
        )
        self.redis_wrong = Counter(
            "twinloop_routing_key_wrong",
            "Times the routing key was not what the log says.",
            ["status"],
            registry=registry,
        )
        self.ignored = Counter(
            "twinloop_gatekeeper_dead_letters",
            "Records nobody can read, by topic.",
            ["topic"],
            registry=registry,
        )
        self.webhook_posts = Counter(
            "twinloop_webhook_posts",
            "Attempts to post a decision, by endpoint and result.",
            ["endpoint", "result"],
            registry=registry,
        )
        self.webhook_age = Gauge(
            "twinloop_webhook_waiting_seconds",
            "Age of the decision that an endpoint has not taken yet, at its last attempt; 0 where none waits.",
            ["endpoint"],
            registry=registry,
        )

        # A series has to be there at 0 before its first rise, or `increase` does not see that one.
        for status in get_args(RedisSeen.model_fields["status"].annotation):
            self.redis_wrong.labels(status)
        for topic in READ_TOPICS:
            self.ignored.labels(topic)

    def decided(self, decision: Decision) -> None:
        self.decisions.labels(decision.kind, decision.reason).inc()

    def applied(self, applied: Applied) -> None:
        self.installs.labels(applied.result).inc()
        self.install_seconds.observe(applied.took_us / 1e6)

    def in_force(self, *, is_durable: bool) -> None:
        """A state was installed, and the store proved that it is kept, or did not."""
        self.undurable.set(not is_durable)

    def workers(self, ready: Mapping[Slot, int]) -> None:
        for slot, count in ready.items():
            self.ready_workers.labels(slot).set(count)

    def judged(self, progress: Progress) -> None:
        """Where the gates of a running canary stand."""
        if progress.phase == "canary":
            for gate in progress.gates:
                self._gate(gate)

    def webhook_begins(self, endpoint: str) -> None:
        for result in WEBHOOK_RESULTS:
            self.webhook_posts.labels(endpoint, result)
        self.webhook_age.labels(endpoint).set(0)

    def webhook(self, endpoint: str, result: str) -> None:
        self.webhook_posts.labels(endpoint, result).inc()

    def webhook_waits(self, endpoint: str, seconds: float) -> None:
        self.webhook_age.labels(endpoint).set(seconds)

    def _gate(self, gate: GateProgress) -> None:
        kind, _, name = gate.name.partition(":")
        evidence, threshold = _number(gate, "e"), _number(gate, "threshold")
        if evidence is not None and threshold:
            self.gate_evidence.labels(kind, name).set(evidence / threshold)
        if kind != "promote":
            return
        for arm, suffix in (("shadow", "s"), ("active", "a")):
            estimate, units = _number(gate, f"est_{suffix}"), _number(gate, f"n_{suffix}")
            if estimate is not None and name == "p95":
                self.gate_seconds.labels(arm).set(estimate / 1000)
            elif estimate is not None:
                self.gate_share.labels(name, arm).set(estimate)
            if units is not None and name == "error_margin":
                self.canary_units.labels(arm).set(units)

    def folded(self, state: JudgeState) -> None:
        routing = state.routing
        if routing is None:
            return
        self.epoch.set(routing.epoch)
        for slot in SLOTS:
            self.active_slot.labels(slot).set(routing.active == slot)
        self.canary_share.set(routing.canary.basis_points / 10_000 if routing.canary else 0)
        if routing.canary is None:
            for gauge in (self.gate_evidence, self.gate_share, self.gate_seconds, self.canary_units):
                gauge.clear()
        self._mirrored(state)
        for phase in PHASES:
            self.phase.labels(phase).set(routing.phase == phase)

    def _mirrored(self, state: JudgeState) -> None:
        """How much of the mirrored traffic came back, where some is judged."""
        self.mirror_coverage.clear()
        self.mirror_copies.clear()
        stage = state.stage
        seen = (
            stage.memory
            if isinstance(stage, Mirroring)
            else stage.mirror
            if isinstance(stage, Bake)
            else None
        )
        if stage is None or seen is None:
            return
        self.mirror_copies.labels(stage.name, "back").set(seen.back)
        self.mirror_copies.labels(stage.name, "missing").set(seen.sent - seen.back)
        if seen.coverage is not None:
            self.mirror_coverage.labels(stage.name).set(seen.coverage)


def _number(gate: GateProgress, name: str) -> float | None:
    value = gate.values.get(name)
    return float(value) if isinstance(value, (int, float)) else None
