"""What a worker decides about a micro-batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.answers import Evaluation
from schemas.event import Purpose
from schemas.queries import Query
from schemas.routing import RoutingState
from services.inference.core.answers import (
    ROWS_MAX,
    Judged,
    Produced,
    answer_event,
    by_origin,
    earns_receipt,
    failure,
    outcome_batches,
    outcome_row,
)
from services.inference.core.citations import citation_verdict
from services.inference.core.plan import plan_batch
from services.inference.core.routed_query import RoutedQuery, read_routed_query
from twinloop.bus.records import Record
from twinloop.codec import encode
from twinloop.errors import InvalidEvent
from twinloop.routing.assignment import assign
from twinloop.routing.stamp import Stamp, stamp_of

NOW = 1_790_000_000_000
ONE, TWO = "1" * 64, "2" * 64


def _state(**changes: object) -> RoutingState:
    fields: dict[str, object] = {
        "incarnation": "a" * 32,
        "epoch": 3,
        "active": "blue",
        "releases": {"blue": ONE, "green": TWO},
        "previous": None,
        "rules": {ONE: ONE, TWO: ONE},
        "phase": "steady",
        "decision_id": "d",
        "changed_at": NOW,
        "changed_by": "g",
    }
    return RoutingState.model_validate({**fields, **changes})


def _routed(state: RoutingState, query_id: str = "q-1", *, asked_at: int = NOW, hops: int = 0) -> RoutedQuery:
    query = Query(id=query_id, text="What is due?", asked_at=asked_at)
    stamp = stamp_of(assign(state, query_id), domain="law", purpose="user", origin=2, assigned_at=asked_at)
    stamp = Stamp(**{**{name: getattr(stamp, name) for name in stamp.__struct_fields__}, "hops": hops})
    record = Record(
        "twinloop.queries.blue", 2, 5, b"k", query.model_dump_json().encode(), stamp.headers(), asked_at
    )
    return read_routed_query(record)


@pytest.mark.parametrize(("purpose", "earned"), [("user", True), ("mirror", False), ("qa", False)])
def test_only_what_a_user_was_shown_can_be_rated_or_corrected(purpose: Purpose, earned: bool) -> None:
    stamp = stamp_of(assign(_state(), "q-1"), domain="law", purpose=purpose, origin=0, assigned_at=NOW)
    assert earns_receipt(stamp, Produced("42 days", (), "missing", None)) is earned


def test_the_answer_to_a_mirrored_copy_is_an_evaluation_without_a_receipt() -> None:
    routed = _routed(_state())
    stamp = stamp_of(assign(_state(), "q-1"), domain="law", purpose="mirror", origin=2, assigned_at=NOW)
    copy = replace(routed, stamp=stamp)
    event = answer_event(
        copy, Produced("42 days", (), "missing", None), answered_at=NOW, receipt=None, unconfirmed=False
    )
    assert isinstance(event, Evaluation)
    assert (event.purpose, event.receipt) == ("mirror", None)


def test_a_query_of_the_current_epoch_is_kept() -> None:
    state = _state()
    plan = plan_batch([_routed(state)], state, now_ms=NOW + 10, max_hops=3, answer_max=16)
    assert [each.query.id for each in plan.keep] == ["q-1"]
    assert not plan.forward
    assert not plan.refuse


def test_a_query_that_belongs_elsewhere_now_is_forwarded() -> None:
    old, new = _state(), _state(epoch=4, active="green")
    plan = plan_batch([_routed(old)], new, now_ms=NOW + 10, max_hops=3, answer_max=16)
    assert [each.assignment.slot for each in plan.forward] == ["green"]
    assert plan.forward[0].assignment.release == TWO


def test_past_the_bound_of_hops_a_query_ends_as_rerouted() -> None:
    old, new = _state(), _state(epoch=4, active="green")
    plan = plan_batch([_routed(old, hops=3)], new, now_ms=NOW + 10, max_hops=3, answer_max=16)
    assert [each.kind for each in plan.refuse] == ["rerouted"]


def test_an_expired_query_is_refused_whatever_the_state_says() -> None:
    plan = plan_batch(
        [_routed(_state(), asked_at=NOW - 20_000)], _state(), now_ms=NOW, max_hops=3, answer_max=16
    )
    assert [each.kind for each in plan.refuse] == ["deadline"]


def test_a_record_without_a_stamp_is_refused_with_its_place() -> None:
    value = Query(id="q", text="What?", asked_at=NOW).model_dump_json().encode()
    for record in (
        Record("t", 1, 7, None, value, (), NOW),
        Record("t", 1, 7, None, b"{", _routed(_state()).record.headers, NOW),
        Record("t", 1, 7, None, None, (), NOW),
    ):
        with pytest.raises(InvalidEvent, match=r"t\[1\]@7"):
            read_routed_query(record)


@pytest.mark.parametrize(
    ("text", "cited", "known", "has_passages", "verdict"),
    [
        ("42 days", ("law-1",), {"law-1": "The notice period is 42 days"}, True, "valid"),
        ("42 days", ("law-1",), {"law-1": "The notice period is 45 days"}, True, "invalid"),
        ("42 days", ("law-9",), {}, True, "invalid"),
        ("42 days", ("law-1", "law-9"), {"law-1": "42 days"}, True, "invalid"),
        ("42 days", (), {}, True, "missing"),
        ("42 days", (), {}, False, "not_required"),
        ("", ("law-1",), {"law-1": "42 days"}, True, "invalid"),
    ],
)
def test_citations_are_judged_by_what_the_index_holds(
    text: str, cited: tuple[str, ...], known: dict[str, str], has_passages: bool, verdict: str
) -> None:
    assert citation_verdict(text, cited=cited, cited_texts=known, has_passages=has_passages) == verdict


def test_an_answer_and_its_outcome_tell_the_same_story() -> None:
    routed = _routed(_state())
    produced = Produced("42 days [law-1]", (), "valid", None, retrieval_ms=1.0, generation_ms=20.0)
    answer = answer_event(routed, produced, answered_at=NOW + 50, receipt="r", unconfirmed=False)
    row = outcome_row(routed, produced, Judged(0.1, False), answered_at=NOW + 50)
    assert answer.timings is not None
    assert (answer.timings.queued_ms, answer.timings.total_ms, row.latency_ms) == (29.0, 50.0, 50.0)
    assert (row.toxic, row.citation, row.error) == (False, "valid", None)
    assert answer.release == row.release == ONE


def test_a_failure_has_an_error_and_no_text() -> None:
    routed = _routed(_state())
    produced = failure("truncated", "too long")
    answer = answer_event(routed, produced, answered_at=NOW, receipt=None, unconfirmed=True)
    assert answer.text is None
    assert answer.error is not None
    assert answer.unconfirmed
    assert outcome_row(routed, produced, None, answered_at=NOW).error == "truncated"


def test_rows_are_grouped_by_origin_and_keep_their_order() -> None:
    assert by_origin([(2, "a"), (0, "b"), (2, "c")]) == [(0, ("b",)), (2, ("a", "c"))]
    rows = [
        (origin, outcome_row(_routed(_state(), f"q-{origin}"), failure("empty", "x"), None, answered_at=NOW))
        for origin in (3, 1)
    ]
    assert [batch.origin for batch in outcome_batches(rows, worker="w", toxicity_classifier="t@1")] == [1, 3]


def test_a_record_holds_so_many_rows_that_the_longest_ids_fit() -> None:
    pieces = by_origin([(0, number) for number in range(ROWS_MAX + 1)])
    assert [(origin, len(rows)) for origin, rows in pieces] == [(0, ROWS_MAX), (0, 1)]
    longest = "x" * 128
    row = outcome_row(_routed(_state(), longest), failure("shed", "x" * 200), None, answered_at=NOW)
    (batch,) = outcome_batches([(0, row)] * ROWS_MAX, worker=longest, toxicity_classifier=longest)
    assert len(encode(batch, source="s", event_id="e", at_ms=NOW)[0]) < 1_000_000
