"""What each service exposes, taken from its own registry, and what a PromQL expression names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from services.api.metrics import ApiMetrics
from services.gatekeeper.metrics import GatekeeperMetrics
from services.inference.metrics import InferenceMetrics
from services.router.metrics import RouterMetrics
from services.trainer.metrics import TrainerMetrics

SERVICES: dict[str, Callable[[CollectorRegistry], Any]] = {
    "api": ApiMetrics,
    "gatekeeper": GatekeeperMetrics,
    "inference": InferenceMetrics,
    "router": RouterMetrics,
    "trainer": TrainerMetrics,
}
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def families(service: str) -> list[Metric]:
    """Every metric of one service, those of series not yet seen included."""
    registry = CollectorRegistry()
    SERVICES[service](registry)
    return list(registry.collect())


def sample_names(service: str) -> set[str]:
    """The names a scrape of it can give."""
    return {
        family.name + suffix for family in families(service) for suffix in _SUFFIXES.get(family.type, ("",))
    }


def every_sample_name() -> set[str]:
    return {name for service in SERVICES for name in sample_names(service)}


def named_in(expression: str) -> set[str]:
    """Our metrics that a PromQL expression names."""
    return set(re.findall(r"\btwinloop_\w+", expression))
