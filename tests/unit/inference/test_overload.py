"""A worker under overload: short backlogs are worked off, lasting ones cut to a bounded wait, low priority first."""

from __future__ import annotations

import msgspec
import pytest
from pydantic import ValidationError

from schemas.event import Priority, Purpose
from schemas.queries import Query
from services.inference.core.overload import Backlog, Load, OverloadPolicy, is_shed, most_urgent
from services.inference.core.plan import plan_batch
from services.inference.core.routed_query import RoutedQuery
from tests.unit.routing.states import state
from twinloop.bus.records import Record
from twinloop.routing.assignment import assign
from twinloop.routing.stamp import stamp_of

NOW = 1_790_000_000_000
POLICY = OverloadPolicy(after_ms=3000, low_share=0.02, normal_share=0.05, high_share=0.15)


def waiting(
    waited_ms: int,
    *,
    priority: Priority = "normal",
    purpose: Purpose = "user",
    number: int = 0,
    deadline_ms: int = 10_000,
) -> RoutedQuery:
    query = Query(
        id=f"q-{number}",
        text="What is due?",
        asked_at=NOW - waited_ms,
        priority=priority,
        deadline_ms=deadline_ms,
    )
    stamp = stamp_of(
        assign(state(), query.id), domain="law", purpose=purpose, origin=0, assigned_at=NOW - waited_ms
    )
    return RoutedQuery(query, stamp, Record("queries.blue", 0, number, b"k", b"", (), NOW))


@pytest.mark.parametrize(
    ("priority", "purpose", "least_ms"),
    [("low", "user", 200), ("normal", "user", 500), ("high", "user", 1500), ("high", "mirror", 200)],
)
def test_under_a_lasting_backlog_each_priority_may_wait_its_time(
    priority: Priority, purpose: Purpose, least_ms: int
) -> None:
    for waited_ms, expected in ((least_ms - 1, False), (least_ms, True)):
        routed = waiting(waited_ms, priority=priority, purpose=purpose)
        assert is_shed(POLICY, routed, now_ms=NOW) is expected


def test_who_asked_with_a_long_deadline_may_wait_long() -> None:
    for waited_ms, expected in ((29_999, False), (30_000, True)):
        routed = waiting(waited_ms, deadline_ms=600_000)
        assert is_shed(POLICY, routed, now_ms=NOW) is expected


def test_probes_are_never_shed() -> None:
    assert not is_shed(POLICY, waiting(9000, purpose="qa"), now_ms=NOW)


def test_a_backlog_lasts_from_when_it_last_shrank() -> None:
    backlog = Backlog.begun(100, 10.0)
    for seconds, waiting_behind in ((11.0, 120), (12.0, 90), (13.0, 95), (14.0, 90)):
        backlog = backlog.seen(waiting_behind, seconds)
    assert backlog.lasting_ms(POLICY, 14.5) == 2500


def test_what_a_stall_left_behind_is_never_shed_while_it_is_worked_off() -> None:
    """Ten seconds of 30 queries a second wait; the worker answers 60 a second."""
    policy, backlog, now, left = OverloadPolicy(), Backlog.begun(300, 0.0), 0.0, 300
    while left > 0:
        now, left = now + 0.25, left - 8
        backlog = backlog.seen(left, now)
        assert backlog.lasting_ms(policy, now) < policy.after_ms


def test_a_backlog_that_grows_lasts_from_its_beginning() -> None:
    backlog = Backlog.begun(16, 5.0)
    for step in range(1, 30):
        backlog = backlog.seen(16 + 10 * step, 5.0 + step / 10)
    assert backlog.lasting_ms(POLICY, 8.0) == 3000


def test_nobody_waits_for_ever_because_a_backlog_shrinks_slowly() -> None:
    backlog = Backlog.begun(1000, 0.0)
    for second in range(1, 10):
        backlog = backlog.seen(1000 - second, float(second))
    assert backlog.lasting_ms(POLICY, 9.9) == 900
    assert backlog.lasting_ms(POLICY, 10.0) == 10_000


def test_a_backlog_that_lasts_is_an_overload_until_one_pass_has_been_enough_for_a_while() -> None:
    load, policy = Load(), OverloadPolicy(after_ms=1500, calm_ms=1000)

    def after(polled: int, waiting_behind: int, now_s: float) -> bool:
        nonlocal load
        load = load.seen(policy, polled=polled, one_pass=16, waiting=waiting_behind, now_s=now_s)
        return load.is_overload

    assert not after(16, 40, 0.0)
    assert not after(16, 80, 1.4)
    assert after(16, 90, 1.5)
    assert after(300, 0, 2.0)
    assert after(9, 0, 2.5), "a flood cut to nothing in one turn is still there"
    assert after(300, 0, 2.9)
    assert after(16, 0, 3.0)
    assert after(3, 0, 3.8)
    assert not after(3, 0, 3.9)
    assert not after(16, 40, 4.0), "the next one has to last as long as the first"


def test_a_full_batch_with_nothing_behind_it_begins_anew_after_one_that_is_not() -> None:
    load, policy = Load(), OverloadPolicy(after_ms=1500)
    for now_s, polled in ((0.0, 16), (1.0, 15), (1.1, 16), (2.5, 16)):
        load = load.seen(policy, polled=polled, one_pass=16, waiting=5, now_s=now_s)
    assert not load.is_overload
    assert load.seen(policy, polled=16, one_pass=16, waiting=5, now_s=2.6).is_overload


def test_nobody_is_shed_while_one_pass_is_enough_for_everybody() -> None:
    batch = [waiting(9000, priority="low", number=number) for number in range(4)]
    plan = plan_batch(batch, state(), now_ms=NOW, max_hops=3, answer_max=4, overload=POLICY)
    assert list(plan.keep) == batch


def test_every_query_of_a_batch_is_answered_or_told_and_the_expired_are_expired_not_shed() -> None:
    batch = [
        waiting(250, priority="low", number=0),
        waiting(250, number=1),
        waiting(600, number=2),
        waiting(600, priority="high", number=3),
        waiting(60_000, number=4),
    ]
    plan = plan_batch(batch, state(), now_ms=NOW, max_hops=3, answer_max=4, overload=POLICY)
    assert [routed.query.id for routed in plan.keep] == ["q-1", "q-3"]
    assert [(each.routed.query.id, each.kind) for each in plan.refuse] == [
        ("q-0", "shed"),
        ("q-2", "shed"),
        ("q-4", "deadline"),
    ]


def test_more_than_one_pass_can_answer_are_cut_to_the_newest_of_the_highest_priority() -> None:
    batch = [
        waiting(90, priority="low", number=0),
        waiting(80, priority="high", number=1),
        waiting(70, number=2),
        waiting(60, number=3),
        waiting(50, priority="high", purpose="mirror", number=4),
        waiting(40, priority="low", purpose="qa", number=5),
    ]
    answered, crowded_out = most_urgent(batch, 3)
    assert [routed.query.id for routed in answered] == ["q-1", "q-3", "q-5"]
    assert [routed.query.id for routed in crowded_out] == ["q-0", "q-2", "q-4"]
    assert most_urgent(batch, 6) == (batch, [])


def test_whoever_one_pass_has_no_room_for_is_told() -> None:
    batch = [waiting(10, number=number) for number in range(5)]
    plan = plan_batch(batch, state(), now_ms=NOW, max_hops=3, answer_max=2)
    assert [routed.query.id for routed in plan.keep] == ["q-0", "q-1"]
    assert {(each.routed.query.id, each.kind) for each in plan.refuse} == {
        ("q-2", "shed"),
        ("q-3", "shed"),
        ("q-4", "shed"),
    }


def test_what_belongs_elsewhere_is_sent_on_before_it_is_shed() -> None:
    newer = state(2, active="green", previous=None)
    plan = plan_batch([waiting(9000)], newer, now_ms=NOW, max_hops=3, answer_max=0, overload=POLICY)
    assert len(plan.forward) == 1
    assert msgspec.structs.asdict(plan.forward[0].assignment)["slot"] == "green"


def test_a_policy_that_sheds_in_the_wrong_order_is_refused() -> None:
    with pytest.raises(ValidationError, match="low priority is shed first"):
        OverloadPolicy(low_share=0.6, normal_share=0.5)
