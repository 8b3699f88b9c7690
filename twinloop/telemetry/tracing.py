"""Traces of the hops a query takes, off unless the standard OTEL_* variables ask for them.

Each hop writes a `traceparent` of its own whether or not anybody traces, so that a span needs nothing while the work is
done: it is recorded afterwards, from the header that came in and the one that went out. Off means that nothing of
OpenTelemetry is imported here and that a batch costs one comparison with None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from twinloop.bus.records import Headers
from twinloop.errors import ConfigError
from twinloop.routing.stamp import Stamp

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True)
class Hop:
    """One hop of one query; times are microseconds since 1970 UTC, attributes never hold what users wrote."""

    name: str
    kind: Literal["client", "consumer"]
    parent: bytes | None
    """The traceparent that came in; None where the trace begins here."""
    own: bytes
    """The traceparent that went out: its span is this hop's."""
    start_us: int
    end_us: int
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    error: str | None = None
    """The kind of error it ended with."""


def stamp_attributes(query_id: str, stamp: Stamp) -> dict[str, str | int | float]:
    """What a hop of a routed query says of its route."""
    return {
        "messaging.message.id": query_id,
        "twinloop.slot": stamp.slot,
        "twinloop.arm": stamp.arm,
        "twinloop.release": stamp.release,
        "twinloop.epoch": stamp.epoch,
        "twinloop.domain": stamp.domain,
        "twinloop.purpose": stamp.purpose,
    }


class Tracer(Protocol):
    """Takes hops that are over; threads may share it."""

    def record(self, hop: Hop) -> None: ...

    def close(self) -> None:
        """Send what is left."""


def open_tracer(service: str, instance: str, environment: Mapping[str, str]) -> Tracer | None:
    """A tracer where `environment` asks for one, else None.

    It asks by OTEL_TRACES_EXPORTER=otlp, or by an OTLP endpoint without OTEL_TRACES_EXPORTER; OTEL_SDK_DISABLED=true
    turns it off. Raises ConfigError where another exporter is asked for, or the extra `otel` is not installed.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    is_asked_for = exporter not in ("", "none") or (not exporter and any(map(environment.get, _ENDPOINTS)))
    if not is_asked_for or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if exporter not in ("", "otlp"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER: {exporter!r} is not supported; use otlp or none")
    try:
        from twinloop.telemetry.otel_tracer import otlp_tracer
    except ImportError as cause:
        raise ConfigError(
            'OTEL_* variables ask for traces, but OpenTelemetry is not installed: pip install "nexus-twinloop[otel]"'
        ) from cause
    return otlp_tracer(service, instance)


def traceparent_in(headers: Headers) -> bytes | None:
    """The last traceparent of a record's headers."""
    found = [value for name, value in headers if name == "traceparent"]
    return found[-1] if found else None
