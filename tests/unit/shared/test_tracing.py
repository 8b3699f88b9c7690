"""Traces: off unless asked for, and spans under the ids that travel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from twinloop.bus.cloudevents import child_traceparent, new_traceparent
from twinloop.errors import ConfigError
from twinloop.telemetry.otel_tracer import OtelTracer
from twinloop.telemetry.tracing import Hop, open_tracer, traceparent_in

ASKED = new_traceparent(bytes(range(24)))
ROUTED = child_traceparent(ASKED, bytes(range(24, 48)))
ANSWERED = child_traceparent(ROUTED, bytes(range(48, 72)))
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


def hop(name: str, own: bytes, parent: bytes | None, *, error: str | None = None) -> Hop:
    return Hop(
        name,
        "consumer",
        parent=parent,
        own=own,
        start_us=1_000,
        end_us=3_000,
        attributes={"twinloop.slot": "blue"},
        error=error,
    )


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[OtelTracer]:
    found = OtelTracer("router", "0", SimpleSpanProcessor(exporter))
    yield found
    found.close()


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace, span and parent as they travel."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent is not None else None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_hops_are_one_trace_under_the_ids_of_their_headers(
    tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    tracer.record(hop("answer", ANSWERED, ROUTED, error="deadline"))
    tracer.record(hop("route", ROUTED, ASKED))
    tracer.record(hop("ask", ASKED, None))
    answer, route, ask = exporter.get_finished_spans()
    headers = [each.decode().split("-") for each in (ASKED, ROUTED, ANSWERED)]
    assert [ids(each) for each in (ask, route, answer)] == [
        (headers[0][1], headers[0][2], None),
        (headers[0][1], headers[1][2], headers[0][2]),
        (headers[0][1], headers[2][2], headers[1][2]),
    ]
    assert (route.start_time, route.end_time) == (1_000_000, 3_000_000)
    assert dict(route.attributes or {}) == {"messaging.system": "kafka", "twinloop.slot": "blue"}
    assert [each.status.is_ok for each in (ask, route)] == [True, True]
    assert (answer.status.is_ok, (answer.attributes or {})["error.type"]) == (False, "deadline")


def test_a_hop_after_a_malformed_traceparent_begins_a_trace(
    tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    for parent in (b"nonsense", new_traceparent(bytes(range(100, 124)))):
        exporter.clear()
        tracer.record(hop("route", ROUTED, parent))
        (span,) = exporter.get_finished_spans()
        assert ids(span)[2] is None


def test_what_is_not_sampled_or_has_no_id_is_not_recorded(
    tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    tracer.record(hop("route", ROUTED[:-2] + b"00", ASKED))
    tracer.record(hop("route", b"nonsense", ASKED))
    assert exporter.get_finished_spans() == ()


def test_the_environment_names_the_process(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-router")
    tracer = OtelTracer("router", "7", SimpleSpanProcessor(exporter))
    tracer.record(hop("route", ROUTED, ASKED))
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == "my-router"
    assert span.resource.attributes["service.instance.id"] == "7"
    tracer.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "router"},
        {"OTEL_TRACES_EXPORTER": "none", **ENDPOINT},
        {"OTEL_SDK_DISABLED": "true", **ENDPOINT},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    assert open_tracer("router", "0", environment) is None


@pytest.mark.parametrize("environment", [ENDPOINT, {"OTEL_TRACES_EXPORTER": "otlp"}])
def test_an_endpoint_or_the_exporters_name_asks_for_traces(environment: dict[str, str]) -> None:
    tracer = open_tracer("router", "0", environment)
    assert isinstance(tracer, OtelTracer)
    tracer.close()


def test_an_exporter_that_is_not_here_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="OTEL_TRACES_EXPORTER: 'zipkin'"):
        open_tracer("router", "0", {"OTEL_TRACES_EXPORTER": "zipkin"})
    monkeypatch.setitem(sys.modules, "twinloop.telemetry.otel_tracer", None)
    with pytest.raises(ConfigError, match=r"nexus-twinloop\[otel\]"):
        open_tracer("router", "0", ENDPOINT)


def test_off_means_that_neither_our_tracer_nor_the_exporter_is_imported() -> None:
    # Not the whole SDK: redis-py imports its metrics wherever it finds them.
    program = (
        "import sys, services.router.__main__, twinloop.client.client as _\n"
        "from twinloop.telemetry.tracing import open_tracer\n"
        "assert open_tracer('router', '0', {}) is None\n"
        "ours = ('twinloop.telemetry.otel_tracer', 'opentelemetry.exporter', 'opentelemetry.sdk.trace')\n"
        "sys.exit(any(name.startswith(ours) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_last_traceparent_of_a_record_counts() -> None:
    assert traceparent_in((("a", b"x"), ("traceparent", ASKED), ("traceparent", ROUTED))) == ROUTED
    assert traceparent_in((("a", b"x"),)) is None
