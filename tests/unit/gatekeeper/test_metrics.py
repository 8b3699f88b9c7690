"""What a running canary shows to Prometheus: evidence, shares and seconds of each gate, gone when it ends."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from schemas.decisions import GateProgress, Progress
from services.gatekeeper.core.state import JudgeState
from services.gatekeeper.metrics import GatekeeperMetrics
from tests.histories.generate import MIRROR, mirroring
from tests.histories.script import BOOT, History

GATES = (
    GateProgress(
        name="promote:error_margin",
        line="x",
        status="open",
        values={"e": 5.0, "threshold": 20.0, "n_s": 300.0, "n_a": 900.0, "est_s": 0.02, "est_a": 0.01},
    ),
    GateProgress(
        name="promote:p95",
        line="x",
        status="open",
        values={"e": 40.0, "threshold": 20.0, "n_s": 300.0, "n_a": 900.0, "est_s": 250.0, "est_a": None},
    ),
    GateProgress(name="domain:law", line="x", status="open", values={"e": 1.0, "threshold": 400.0}),
)


def shown_after(metrics: GatekeeperMetrics, registry: CollectorRegistry) -> set[str]:
    return {sample.name for family in registry.collect() for sample in family.samples}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_each_gate_shows_how_near_it_is_to_deciding(registry: CollectorRegistry) -> None:
    metrics = GatekeeperMetrics(registry)
    metrics.judged(Progress(at=0, epoch=3, phase="canary", release=BOOT, line="x", gates=GATES))
    value = registry.get_sample_value
    assert value("twinloop_canary_evidence_ratio", {"kind": "promote", "gate": "error_margin"}) == 0.25
    assert value("twinloop_canary_evidence_ratio", {"kind": "promote", "gate": "p95"}) == 2
    assert value("twinloop_canary_evidence_ratio", {"kind": "domain", "gate": "law"}) == 0.0025
    assert value("twinloop_canary_gate_ratio", {"gate": "error_margin", "arm": "shadow"}) == 0.02
    assert value("twinloop_canary_p95_seconds", {"arm": "shadow"}) == 0.25
    assert value("twinloop_canary_p95_seconds", {"arm": "active"}) is None
    assert value("twinloop_canary_units", {"arm": "active"}) == 900


def test_a_canary_that_ended_shows_no_gates(registry: CollectorRegistry) -> None:
    metrics = GatekeeperMetrics(registry)
    metrics.judged(Progress(at=0, epoch=3, phase="canary", release=BOOT, line="x", gates=GATES))
    assert "twinloop_canary_evidence_ratio" in shown_after(metrics, registry)
    state: JudgeState = History().begin().state
    metrics.folded(state)
    assert "twinloop_canary_evidence_ratio" not in shown_after(metrics, registry)


def test_a_first_rise_can_be_seen_because_every_series_begins_at_zero(registry: CollectorRegistry) -> None:
    GatekeeperMetrics(registry)
    for status in ("missing", "behind", "foreign", "forged", "break-glass"):
        assert registry.get_sample_value("twinloop_routing_key_wrong_total", {"status": status}) == 0
    assert registry.get_sample_value("twinloop_gatekeeper_dead_letters_total", {"topic": "outcomes"}) == 0


def test_the_share_of_copies_that_came_back_is_shown_while_they_are_judged(
    registry: CollectorRegistry,
) -> None:
    metrics = GatekeeperMetrics(registry)
    history = mirroring(mirror={**MIRROR, "min_units": 3000})
    history.mirrored(3, missing=5)
    metrics.folded(history.state)
    assert registry.get_sample_value("twinloop_mirror_coverage_ratio", {"stage": "mirroring"}) == 0.95
    missing = {"stage": "mirroring", "result": "missing"}
    assert registry.get_sample_value("twinloop_mirror_copies", missing) == 15
    history.order("abort")
    metrics.folded(history.state)
    assert "twinloop_mirror_coverage_ratio" not in shown_after(metrics, registry)
