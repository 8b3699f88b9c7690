"""What a gatekeeper counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.decisions import Decision
from schemas.gate_inputs import Applied
from services.gatekeeper.core.state import JudgeState

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
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
            "twinloop_canary_basis_points", "Share of subjects on the shadow.", registry=registry
        )
        self.leading = Gauge("twinloop_gatekeeper_leading", "1 where this instance acts.", registry=registry)
        self.lag = Gauge("twinloop_gate_inputs_lag", "Records logged and not folded yet.", registry=registry)
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

    def decided(self, decision: Decision) -> None:
        self.decisions.labels(decision.kind, decision.reason).inc()

    def applied(self, applied: Applied) -> None:
        self.installs.labels(applied.result).inc()
        self.install_seconds.observe(applied.took_us / 1e6)

    def folded(self, state: JudgeState) -> None:
        routing = state.routing
        if routing is None:
            return
        self.epoch.set(routing.epoch)
        self.canary_share.set(routing.canary.basis_points if routing.canary else 0)
        for phase in PHASES:
            self.phase.labels(phase).set(routing.phase == phase)
