"""What a worker counts tells users' queries from probes and mirrored copies."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from schemas.event import Purpose
from services.inference.core.answers import Produced
from services.inference.metrics import InferenceMetrics
from twinloop.routing.stamp import Stamp


def test_the_time_of_a_probe_is_not_counted_as_a_user_s() -> None:
    registry = CollectorRegistry()
    metrics = InferenceMetrics(registry)
    produced = Produced("Lima", (), None, None)
    taken_ms: dict[Purpose, int] = {"user": 250, "qa": 4000, "mirror": 4000}
    for purpose, milliseconds in taken_ms.items():
        stamp = Stamp(
            slot="blue",
            arm="shadow",
            release="0" * 64,
            epoch=1,
            domain="law",
            purpose=purpose,
            origin=1,
            assigned_at=1,
            bucket=1,
            unit="0" * 16,
        )
        metrics.answered(stamp, produced, milliseconds)
    labels = {"domain": "law", "slot": "blue", "purpose": "user"}
    assert registry.get_sample_value("twinloop_answer_duration_seconds_count", labels) == 1
    assert registry.get_sample_value("twinloop_answer_duration_seconds_sum", labels) == 0.25
