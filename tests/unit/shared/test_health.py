"""The health server of every process."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from twinloop.errors import ConfigError
from twinloop.telemetry.health import HealthServer


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_says_alive_ready_and_shows_metrics() -> None:
    registry = CollectorRegistry()
    Counter("twinloop_things", "Things.", registry=registry).inc()
    ready = [(False, "preparing")]
    server = HealthServer("127.0.0.1", 0, registry, lambda: ready[0])
    try:
        assert _get(server.port, "/healthz") == (200, "alive\n")
        assert _get(server.port, "/readyz") == (503, "preparing\n")
        ready[0] = (True, "epoch 3")
        assert _get(server.port, "/readyz") == (200, "epoch 3\n")
        assert "twinloop_things_total 1.0" in _get(server.port, "/metrics")[1]
        assert _get(server.port, "/elsewhere")[0] == 404
    finally:
        server.close()


def test_a_busy_port_is_named() -> None:
    first = HealthServer("127.0.0.1", 0, CollectorRegistry(), lambda: (True, ""))
    try:
        with pytest.raises(ConfigError, match=rf"telemetry\.port: cannot bind 127\.0\.0\.1:{first.port}"):
            HealthServer("127.0.0.1", first.port, CollectorRegistry(), lambda: (True, ""))
    finally:
        first.close()
