"""A small HTTP server in a thread: /healthz, /readyz and /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from twinloop.errors import ConfigError

IsReady = Callable[[], tuple[bool, str]]


class HealthServer:
    """Serves one process's health until closed; raises ConfigError where the port is taken."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, is_ready: IsReady) -> None:
        handler = _handler(registry, is_ready)
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise ConfigError(
                f"telemetry.port: cannot bind {host}:{port} ({error}); choose another port, or 0 for a free one"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _handler(registry: CollectorRegistry, is_ready: IsReady) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._reply(200, b"alive\n", "text/plain; charset=utf-8")
            elif self.path == "/readyz":
                ready, reason = is_ready()
                self._reply(200 if ready else 503, f"{reason}\n".encode(), "text/plain; charset=utf-8")
            elif self.path == "/metrics":
                self._reply(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            else:
                self._reply(404, b"try /healthz, /readyz or /metrics\n", "text/plain; charset=utf-8")

        def _reply(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not worth a log line."""

    return Handler
