"""What a trace shows of the router: one hop a query, told once it is committed."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.router.test_worker import Bench, ask, steady
from twinloop.bus.cloudevents import new_traceparent
from twinloop.bus.records import Record
from twinloop.telemetry.tracing import Hop, traceparent_in

ASKED = new_traceparent(bytes(range(24)))


class Kept:
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.hops: list[Hop] = []

    def record(self, hop: Hop) -> None:
        self.hops.append(hop)

    def close(self) -> None:
        """Nothing is left."""


def traced(count: int) -> tuple[Bench, Kept]:
    bench, tracer = Bench(), Kept()
    bench.stream.log = [_with_trace(ask(number, asked_at=bench.clock.at_ms)) for number in range(count)]
    bench.worker._parts = replace(bench.worker._parts, tracer=tracer)
    bench.put(steady())
    return bench, tracer


def _with_trace(record: Record) -> Record:
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        (("traceparent", ASKED),),
        record.timestamp_ms,
    )


def test_each_routed_query_is_a_hop_between_its_two_headers() -> None:
    bench, tracer = traced(3)
    bench.turns(2)
    routed = [each for each in bench.stream.committed if each.topic.startswith("queries.")]
    assert len(routed) == 3
    assert [hop.own for hop in tracer.hops] == [traceparent_in(each.headers) for each in routed]
    assert {hop.parent for hop in tracer.hops} == {ASKED}
    assert [hop.attributes["messaging.message.id"] for hop in tracer.hops] == ["q-0", "q-1", "q-2"]


def test_what_is_undone_and_routed_again_is_told_once() -> None:
    bench, tracer = traced(2)
    bench.stream.fail_next["commit"] = 1
    bench.turns(1)
    assert tracer.hops == []
    bench.turns(3)
    assert [hop.attributes["messaging.message.id"] for hop in tracer.hops] == ["q-0", "q-1"]
