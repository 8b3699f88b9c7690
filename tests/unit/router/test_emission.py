from __future__ import annotations

from schemas.answers import Answer
from services.router.core.micro_batch import Decisions, Refusal, Route
from services.router.emission import Emitter, Names, routed_headers
from tests.unit.router.records import NOW, query, record
from tests.unit.routing.states import state
from twinloop.bus.cloudevents import valid_traceparent
from twinloop.routing.assignment import assign
from twinloop.routing.stamp import read_stamp, stamp_of
from twinloop.topics import TopicCatalogue

STAMP = stamp_of(assign(state(), "alice"), domain="law", purpose="user", origin=2, assigned_at=NOW)
PARENT = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
EMITTER = Emitter(Names.of(TopicCatalogue.load(prefix="t.")), router="router-0", source="router/router-0/x")


def test_original_headers_stay_the_span_is_new_and_forged_stamps_go() -> None:
    found = routed_headers(
        (("ce_id", b"1"), ("traceparent", PARENT), ("tl-epoch", b"99"), ("own", b"x")),
        STAMP,
        bytes(range(24)),
    )
    named = dict(found)
    assert len(named) == len(found)
    assert (named["ce_id"], named["own"], named["tl-epoch"]) == (b"1", b"x", b"1")
    child = valid_traceparent(named["traceparent"])
    assert child is not None
    assert child[:35] == PARENT[:35]
    assert child != PARENT
    assert read_stamp(found) == STAMP


def test_a_routed_query_keeps_its_bytes_and_goes_to_its_origin_partition() -> None:
    decisions = Decisions([Route(0, STAMP)], [], {}, {2: ["q-1"]}, 0)
    raw = record(b'{"any": "bytes"}', partition=2)
    routed, seen = EMITTER.emit(
        decisions, [(raw, query("q-1", subject="alice"))], now_ms=NOW, random_bytes=bytes(24)
    )
    assert (routed.topic, routed.value, routed.key, routed.partition) == (
        "t.queries.blue",
        raw.value,
        b"alice",
        2,
    )
    assert (seen.topic, seen.key, seen.partition) == ("t.seen-ids", b"q-1", 2)


def test_a_refused_query_is_told_with_its_client_in_a_header() -> None:
    decisions = Decisions([], [Refusal(0, "shed")], {}, {}, 0)
    (told,) = EMITTER.emit(
        decisions, [(record(b""), query("q-1", client="app-3"))], now_ms=NOW, random_bytes=b""
    )
    answer = Answer.model_validate_json(told.value or b"")
    assert answer.error is not None
    assert (answer.query_id, answer.error.kind, answer.text, answer.receipt) == ("q-1", "shed", None, None)
    assert (told.topic, told.key) == ("t.answers", b"q-1")
    assert dict(told.headers)["tl-client"] == b"app-3"
