"""OpenTelemetry's SDK, given the ids that travel; the only module that imports it."""

from __future__ import annotations

import threading

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from twinloop.bus.cloudevents import valid_traceparent
from twinloop.telemetry.tracing import Hop

_KINDS = {"client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}


def otlp_tracer(service: str, instance: str) -> OtelTracer:
    """Sends batches over OTLP/HTTP from a thread of its own, as OTEL_* variables say."""
    return OtelTracer(service, instance, BatchSpanProcessor(OTLPSpanExporter()))


class OtelTracer:
    """Implements `Tracer`; the sampler is the SDK's (OTEL_TRACES_SAMPLER, by default all of a sampled parent)."""

    def __init__(self, service: str, instance: str, processor: SpanProcessor) -> None:
        names = {"service.name": f"twinloop-{service}", "service.instance.id": instance}
        # What the environment says of the process wins over these defaults.
        resource = Resource.create(names).merge(OTELResourceDetector().detect())
        self._ids = _GivenIds()
        self._turn = threading.Lock()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("twinloop")

    def record(self, hop: Hop) -> None:
        own = _context_of(hop.own)
        if own is None or not own.trace_flags.sampled:
            return
        parent = _context_of(hop.parent)
        # A malformed traceparent was answered with a new trace: what came before is no part of it.
        is_child = parent is not None and parent.trace_id == own.trace_id
        context = (
            set_span_in_context(NonRecordingSpan(parent), Context()) if parent and is_child else Context()
        )
        with self._turn:
            self._ids.give(own)
            span = self._tracer.start_span(
                hop.name,
                context=context,
                kind=_KINDS[hop.kind],
                attributes={"messaging.system": "kafka", **hop.attributes},
                start_time=hop.start_us * 1000,
            )
        if hop.error is not None:
            span.set_attribute("error.type", hop.error)
            span.set_status(Status(StatusCode.ERROR, hop.error))
        span.end(end_time=hop.end_us * 1000)

    def close(self) -> None:
        self._provider.shutdown()


class _GivenIds(IdGenerator):
    """Hands the SDK the ids of the span that is recorded next."""

    def give(self, context: SpanContext) -> None:
        self._next = context

    def generate_span_id(self) -> int:
        return self._next.span_id

    def generate_trace_id(self) -> int:
        return self._next.trace_id


def _context_of(traceparent: bytes | None) -> SpanContext | None:
    valid = valid_traceparent(traceparent)
    if valid is None:
        return None
    _, trace, span, flags = valid.split(b"-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
