"""A router process routes, follows swaps, drops duplicates, buries what nobody can read, and drains."""

from __future__ import annotations

import json

from schemas.answers import Answer
from schemas.assignments import AssignmentBatch
from schemas.readiness import Readiness
from tests.integration.router.harness import ACTIVE, SHADOW, RouterBench, ids, now_ms, questions, seen_ids
from twinloop.routing.stamp import read_stamp
from twinloop.routing.store import Installed


def test_every_query_is_routed_once_with_stamp_row_and_seen_id(bench: RouterBench) -> None:
    assert isinstance(bench.install(bench.canary_state(1), "create"), Installed)
    bench.ask(questions(300), headers=(("tl-stamp", b"forged"), ("own", b"kept")))
    process = bench.start_router()

    routed = bench.wait_until(
        lambda: [*bench.records("queries.blue"), *bench.records("queries.green")],
        lambda all_: len(all_) >= 300,
    )
    assert bench.stop_router(process) == 0

    assert sorted(ids(routed)) == sorted(query.id for query in questions(300))
    for record in routed:
        stamp = read_stamp(record.headers)
        assert record.topic == bench.topics.name(f"queries.{stamp.slot}")
        assert (stamp.release, stamp.arm) == (
            (ACTIVE, "active") if stamp.slot == "blue" else (SHADOW, "shadow")
        )
        assert stamp.slot == ("green" if stamp.bucket < 1000 else "blue")
        assert (stamp.domain, stamp.epoch, record.partition) == ("law", 1, stamp.origin)
        assert record.header("own") == b"kept"
        assert [name for name, _ in record.headers].count("tl-stamp") == 1
        assert record.key == json.loads(record.value or b"")["subject"].encode()
    rows = [row for batch in bench.events("assignments", AssignmentBatch) for row in batch.rows]
    assert sorted(row.id for row in rows) == sorted(ids(routed))
    assert sorted(seen_ids(bench)) == sorted(ids(routed))
    assert 5 <= len(bench.records("queries.green")) <= 70
    assert bench.events("readiness", Readiness)[-1].stopping


def test_queries_published_after_a_swap_never_follow_the_old_epoch(bench: RouterBench) -> None:
    bench.install(bench.state(1), "create")
    bench.start_router()
    bench.ask(questions(50))
    bench.wait_for("queries.blue", 50)

    swapped = bench.state(2, active="green", previous=ACTIVE)
    assert isinstance(bench.install(swapped), Installed)
    bench.ask(questions(50, start=50))

    routed = bench.wait_for("queries.green", 50)
    assert {read_stamp(record.headers).epoch for record in routed} == {2}
    assert len(bench.records("queries.blue")) == 50


def test_an_idle_router_reports_a_swap_without_any_query(bench: RouterBench) -> None:
    bench.install(bench.state(1), "create")
    bench.start_router()
    seen = lambda epoch: lambda found: any(each.epoch == epoch for each in found)  # noqa: E731
    bench.wait_until(lambda: bench.events("readiness", Readiness), seen(1))
    installed_at = now_ms()
    bench.install(bench.state(2))

    reports = bench.wait_until(lambda: bench.events("readiness", Readiness), seen(2))
    applied = next(each for each in reports if each.epoch == 2)
    assert applied.applied_at_us // 1000 - installed_at < 1000
    assert applied.service == "router"


def test_duplicates_are_dropped_also_by_the_next_process(bench: RouterBench) -> None:
    bench.install(bench.state(1), "create")
    process = bench.start_router()
    bench.ask(questions(20))
    bench.ask(questions(20))
    bench.wait_for("queries.blue", 20)
    assert bench.stop_router(process) == 0

    bench.start_router()
    bench.ask(questions(21))
    routed = bench.wait_for("queries.blue", 21)
    assert sorted(ids(routed)) == sorted(query.id for query in questions(21))


def test_what_nobody_can_read_ends_as_a_dead_letter_and_the_rest_goes_on(bench: RouterBench) -> None:
    bench.install(bench.state(1), "create")
    good = questions(1)[0]
    plain = json.loads(good.model_dump_json())
    bad = [
        b"{not json",
        json.dumps({**plain, "domain": "astrology"}).encode(),
        json.dumps({**plain, "surprise": 1}).encode(),
    ]
    for value in bad:
        bench.publish(value, key="x")
    bench.publish(good.model_dump_json().encode(), key="x", headers=(("ce_type", b"twinloop.query.v9"),))
    bench.ask([good])
    bench.start_router()

    letters = bench.wait_for("dead-letters", 4)
    assert sorted(letter.value or b"" for letter in letters) == sorted(
        [*bad, good.model_dump_json().encode()]
    )
    for letter in letters:
        assert letter.header("tl-origin-topic") == bench.topics.name("queries").encode()
        assert letter.header("tl-error-kind") == b"InvalidEvent"
    assert ids(bench.wait_for("queries.blue", 1)) == [good.id]


def test_an_expired_query_gets_its_error_answer(bench: RouterBench) -> None:
    bench.install(bench.state(1), "create")
    late = questions(1)[0].model_copy(update={"asked_at": now_ms() - 120_000, "client": "phone-7"})
    bench.ask([late])
    bench.start_router()

    record = bench.wait_for("answers", 1)[0]
    answer = Answer.model_validate_json(record.value or b"")
    assert answer.error is not None
    assert (answer.query_id, answer.error.kind, answer.release) == (late.id, "deadline", None)
    assert (record.key, record.header("tl-client")) == (late.id.encode(), b"phone-7")
    assert not bench.records("queries.blue")


def test_mirrored_copies_have_rows_of_their_own(bench: RouterBench) -> None:
    bench.install(bench.mirror_state(1), "create")
    bench.ask(questions(10))
    bench.start_router()

    copies = bench.wait_for("queries.green", 10)
    assert {read_stamp(record.headers).purpose for record in copies} == {"mirror"}
    assert len(bench.wait_for("queries.blue", 10)) == 10
    rows = [row for batch in bench.events("assignments", AssignmentBatch) for row in batch.rows]
    assert sorted(row.purpose for row in rows) == ["mirror"] * 10 + ["user"] * 10
