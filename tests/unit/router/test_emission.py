from __future__ import annotations

from schemas.answers import Answer
from schemas.assignments import AssignmentBatch
from schemas.seen_ids import SeenIds
from services.router.core.micro_batch import Decisions, Refusal
from services.router.core.rows import Route, way_of
from services.router.emission import Emitter, Names, routed_headers
from services.router.parsing import Intake
from tests.unit.router.records import NOW, query, record
from tests.unit.routing.states import state
from twinloop.bus.cloudevents import new_traceparent, valid_traceparent
from twinloop.routing.assignment import assign
from twinloop.routing.stamp import read_stamp, stamp_of
from twinloop.topics import TopicCatalogue

PLACE = assign(state(), "alice")
STAMP = stamp_of(PLACE, domain="law", purpose="user", origin=2, assigned_at=NOW)
ROUTE = Route(
    0,
    way_of(
        slot=PLACE.slot,
        arm=PLACE.arm,
        release=PLACE.release,
        epoch=PLACE.epoch,
        domain="law",
        purpose="user",
        origin=2,
        assigned_at=NOW,
        unconfirmed=False,
    ),
    PLACE.bucket,
    PLACE.unit,
)
PARENT = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
EMITTER = Emitter(Names.of(TopicCatalogue.load(prefix="t.")), router="router-0", source="router/router-0/x")


def test_original_headers_stay_the_span_is_new_and_forged_stamps_go() -> None:
    found = routed_headers(
        (("ce_id", b"1"), ("traceparent", PARENT), ("tl-stamp", b"99"), ("own", b"x")),
        STAMP.headers()[0],
        bytes(range(24)),
    )
    named = dict(found)
    assert len(named) == len(found)
    assert (named["ce_id"], named["own"]) == (b"1", b"x")
    child = valid_traceparent(named["traceparent"])
    assert child is not None
    assert child[:35] == PARENT[:35]
    assert child != PARENT
    assert read_stamp(found) == STAMP


def test_a_routed_query_keeps_its_bytes_and_goes_to_its_origin_partition() -> None:
    decisions = Decisions([ROUTE], [], {2: ["q-1", "q-2"]}, 0)
    raw = record(b'{"any": "bytes"}', partition=2, headers=(("own", b"x"),))
    intake = Intake(2, query("q-1", subject="alice"), raw, 2000, True)
    routed, rows, seen = EMITTER.emit(decisions, [intake], now_ms=NOW, random_bytes=bytes(range(24)))
    assert (routed.topic, routed.value, routed.key, routed.partition) == (
        "t.queries.blue",
        raw.value,
        b"alice",
        2,
    )
    trace = valid_traceparent(dict(routed.headers)["traceparent"])
    assert trace == new_traceparent(bytes(range(24)))
    assert (dict(routed.headers)["own"], read_stamp(routed.headers)) == (b"x", STAMP)
    assert routed.size <= 2000
    assert (rows.topic, rows.key, rows.partition) == ("t.assignments", b"2", 2)
    assert [row.id for row in AssignmentBatch.model_validate_json(rows.value or b"").rows] == ["q-1"]
    assert (seen.topic, seen.key, seen.partition) == ("t.seen-ids", b"2/q-1", 2)
    assert SeenIds.model_validate_json(seen.value or b"").ids == ("q-1", "q-2")


def test_a_refused_query_is_told_with_its_client_in_a_header() -> None:
    decisions = Decisions([], [Refusal(0, "shed")], {}, 0)
    (told,) = EMITTER.emit(
        decisions,
        [Intake(0, query("q-1", client="app-3"), record(b""), 0, True)],
        now_ms=NOW,
        random_bytes=b"",
    )
    answer = Answer.model_validate_json(told.value or b"")
    assert answer.error is not None
    assert (answer.query_id, answer.error.kind, answer.text, answer.receipt) == ("q-1", "shed", None, None)
    assert (told.topic, told.key) == ("t.answers", b"q-1")
    assert dict(told.headers)["tl-client"] == b"app-3"
