from __future__ import annotations

from typing import Any

import pytest

from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.event import Domain
from schemas.routing import RoutingState
from schemas.seen_ids import SeenIds
from services.router.core.micro_batch import Arrival, Decisions, Situation, decide
from services.router.core.overload import OverloadPolicy, admit
from services.router.core.rows import Seen, encode_seen, spell, spell_batch
from tests.unit.router.records import NOW, query
from tests.unit.routing.states import A, B, canary, mirror, state
from twinloop.errors import NotReady
from twinloop.routing.assignment import assign
from twinloop.routing.stamp import read_stamp


class Chooser:
    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    def choose(self, text: str) -> Domain:
        return self.domain


RULES = {A: Chooser("law"), B: Chooser("med")}


def decided(arrivals: list[Arrival], found: RoutingState, **more: Any) -> Decisions:
    values: dict[str, Any] = {
        "chooser": RULES.__getitem__,
        "seen": lambda origin: (),
        "now_ms": NOW,
        "policy": OverloadPolicy(),
    }
    return decide(arrivals, Situation(state=found, **{**values, **more}))


def rows_of(found: Decisions, asked: list[Arrival]) -> list[AssignmentRow]:
    spelled = spell(found.routes, [arrival.query for arrival in asked])
    return list(
        AssignmentBatch.model_validate_json(spell_batch(0, "router-0", [row for _, row in spelled])).rows
    )


def arrivals(count: int) -> list[Arrival]:
    return [Arrival(number % 4, query(f"q-{number}")) for number in range(count)]


def test_the_whole_batch_is_routed_by_one_state_and_each_query_has_one_row() -> None:
    shared = state(7, canary=canary(1000))
    found = decided(arrivals(500), shared)
    assert [route.position for route in found.routes] == list(range(500))
    assert {route.stamp.epoch for route in found.routes} == {7}
    for route, row in zip(found.routes, rows_of(found, arrivals(500)), strict=True):
        asked = arrivals(500)[route.position].query
        expected = assign(shared, asked.sticky_subject)
        assert (row.id, row.deadline_at) == (asked.id, asked.asked_at + asked.deadline_ms)
        assert (row.slot, row.arm, row.release) == (expected.slot, expected.arm, expected.release)
        assert (row.bucket, row.unit) == (expected.bucket, expected.unit)
        assert (route.stamp.slot, route.stamp.unit, route.stamp.domain) == (row.slot, row.unit, row.domain)
        assert route.stamp.origin == route.position % 4


def test_the_release_s_own_rules_choose_the_domain_unless_the_producer_did() -> None:
    shared = state(canary=canary(1000))
    for route in decided(arrivals(300), shared).routes:
        assert route.stamp.domain == ("law" if route.stamp.release == A else "med")
    fixed = decided([Arrival(0, query(domain="fin"))], shared)
    assert fixed.routes[0].stamp.domain == "fin"


def test_opting_out_and_the_missing_subject_are_respected() -> None:
    shared = state(canary=canary(1000), mirror=mirror())
    found = decided([Arrival(0, query(f"q-{n}", canary_opt_out=True)) for n in range(200)], shared)
    assert {(route.stamp.arm, route.stamp.purpose) for route in found.routes} == {("active", "user")}
    lone = decided([Arrival(0, query("q-9", subject=None))], shared)
    assert lone.routes[0].stamp.bucket == assign(shared, "q-9").bucket


def test_duplicates_are_dropped_within_a_batch_and_against_the_past() -> None:
    twice = [Arrival(0, query("a")), Arrival(0, query("a")), Arrival(0, query("b"))]
    found = decided(twice, state(), seen=lambda origin: {"b"})
    assert [route.position for route in found.routes] == [0]
    assert (found.duplicates, found.ended) == (2, {0: ["a"]})


def test_mirrored_copies_are_routes_and_rows_of_their_own() -> None:
    found = decided(arrivals(4), state(mirror=mirror()))
    assert [(route.position, route.stamp.purpose) for route in found.routes][:2] == [
        (0, "user"),
        (0, "mirror"),
    ]
    assert all(
        (route.stamp.slot, route.stamp.arm, route.stamp.release) == ("green", "shadow", B)
        for route in found.routes
        if route.stamp.purpose == "mirror"
    )
    assert len(rows_of(found, arrivals(4))) == 8
    assert sum(len(ids) for ids in found.ended.values()) == 4


def test_who_is_answered_by_the_shadow_gets_no_copy_there() -> None:
    both = state(canary=canary(1000), mirror=mirror())
    for position, route in enumerate(decided(arrivals(300), both).routes):
        if route.stamp.purpose == "mirror":
            assert route.stamp.bucket is not None
            assert assign(both, f"user-q-{route.position}").arm == "active", position


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
@pytest.mark.parametrize("is_backlogged", [False, True])
def test_a_batch_refuses_at_the_millisecond_the_policy_names(priority: str, is_backlogged: bool) -> None:
    policy = OverloadPolicy(low_share=0.3, normal_share=0.7)
    for waited_ms in (0, 299, 300, 699, 700, 999, 1000, 5000):
        asked = query("q-1", asked_at=NOW - waited_ms, deadline_ms=1000, priority=priority)
        found = decided([Arrival(0, asked)], state(), is_backlogged=is_backlogged, policy=policy)
        expected = admit(
            policy,
            priority=asked.priority,
            waited_ms=waited_ms,
            deadline_ms=1000,
            is_backlogged=is_backlogged,
        )
        assert [refusal.kind for refusal in found.refusals] == ([] if expected == "route" else [expected])


def test_expired_and_shed_queries_end_with_an_error_and_are_not_assigned() -> None:
    late = Arrival(0, query("late", asked_at=NOW - 10_000, deadline_ms=10_000))
    low = Arrival(0, query("low", asked_at=NOW - 5_000, deadline_ms=10_000, priority="low"))
    found = decided([late, low], state(), is_backlogged=True)
    assert [(refusal.position, refusal.kind) for refusal in found.refusals] == [(0, "deadline"), (1, "shed")]
    assert found.routes == []
    assert found.ended == {0: ["late", "low"]}


def test_routing_by_the_last_known_good_state_is_marked() -> None:
    found = decided(arrivals(1), state(), unconfirmed=True)
    assert found.routes[0].stamp.unconfirmed
    assert rows_of(found, arrivals(1))[0].unconfirmed


def test_missing_rules_decide_nothing() -> None:
    def none_prepared(release: str) -> Chooser:
        raise NotReady(release)

    with pytest.raises(NotReady):
        decided(arrivals(1), state(), chooser=none_prepared)


def test_what_is_spelled_fast_is_what_the_schemas_say() -> None:
    asked = arrivals(20)
    found = decided(asked, state(canary=canary(1000), mirror=mirror()), unconfirmed=True)
    spelled = list(spell(found.routes, [arrival.query for arrival in asked]))
    batch = AssignmentBatch.model_validate_json(spell_batch(3, "router", [row for _, row in spelled]))
    assert (batch.origin, batch.router) == (3, "router")
    for route, (stamp, _), row in zip(found.routes, spelled, batch.rows, strict=True):
        assert read_stamp([("tl-stamp", stamp)]) == route.stamp
        shared = {
            name: getattr(row, name) for name in row.model_fields_set & set(route.stamp.__struct_fields__)
        }
        assert shared == {name: getattr(route.stamp, name) for name in shared}
        assert (row.id, row.hops) == (asked[route.position].query.id, 0)
    seen = encode_seen(Seen(3, NOW, ["q", "r"]))
    assert SeenIds.model_validate_json(seen) == SeenIds(origin=3, seen_at=NOW, ids=("q", "r"))
