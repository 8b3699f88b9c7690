"""Metrics of the API; labels are bounded: route templates, methods, statuses."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.api.core.read_model import GroupLag

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ApiMetrics:
    """One set a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "twinloop_api_requests", "Calls answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "twinloop_api_request_duration_seconds",
            "From a call to the start of its reply.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.unaudited = Counter(
            "twinloop_api_unaudited", "Audit events that Kafka did not take.", registry=registry
        )
        self._lag = Gauge(
            "twinloop_consumer_lag_records",
            "Records of a topic that a consumer group has still to read; absent while Kafka does not say.",
            ["group", "topic"],
            registry=registry,
        )
        self.streams = Gauge("twinloop_api_streams", "Event streams that are open.", registry=registry)
        self.waiting = Gauge(
            "twinloop_api_waiting_questions", "Questions that wait for an answer.", registry=registry
        )

    def behind(self, found: Iterable[GroupLag]) -> None:
        """What is not named is not known any more."""
        self._lag.clear()
        for each in found:
            self._lag.labels(each.group, each.topic).set(each.records)

    def called(self, route: str, method: str, status: int, seconds: float) -> None:
        known = method if method in ("GET", "POST", "HEAD") else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
