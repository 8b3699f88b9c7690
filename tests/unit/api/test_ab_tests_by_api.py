"""An A/B test through the API: ordered like a canary's growth, followed while it runs, and reported when it ended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.desk import ACTIVE, CANDIDATE, NOW, Desk, decision, progress
from twinloop.signing import verify_document

pytestmark = pytest.mark.asyncio

WHY = {"reason": "shorter answers"}


def begin(desk: Desk, epoch: int = 6) -> None:
    """A test of CANDIDATE, which served before, against ACTIVE."""
    canary = decision(4).state.canary
    said = decision(
        epoch,
        "ab_start",
        release=CANDIDATE,
        reason="manual",
        line="A/B against c40ffd4b",
        evidence={"active": ACTIVE, "basis_points": 500, "units": 2000},
        state={"phase": "canary", "canary": None if canary is None else canary.model_dump(mode="json")},
    )
    desk.feed("decisions", said, offset=2 * epoch)


def end(desk: Desk, epoch: int = 7, kind: str = "ab_end") -> None:
    desk.feed("decisions", decision(epoch, kind, release=CANDIDATE, line="equal"), offset=2 * epoch)


async def shown(desk: Desk, query: str = "") -> dict[str, Any]:
    reply = await desk.call("GET", f"/ab{query}", by="vera")
    assert reply.status_code == 200, reply.text
    document: dict[str, Any] = reply.json()
    return document


async def test_a_test_is_ordered_in_the_caller_s_name_with_share_and_size(desk: Desk) -> None:
    order = {**WHY, "release": CANDIDATE, "basis_points": 500, "units": 1000}
    reply = await desk.call("POST", "/ab", by="olga", json=order)
    assert reply.status_code == 200, reply.text
    assert reply.json()["decision"]["kind"] == "ab_start"
    (given,) = desk.kafka.orders
    verify_document(given, desk.ring, role="operator")
    assert (given.action, given.actor, given.release) == ("ab_start", "olga", CANDIDATE)
    assert given.parameters == {"basis_points": 500, "units": 1000, "via": "api"}


async def test_a_test_is_stopped_by_an_order(desk: Desk) -> None:
    reply = await desk.call("POST", "/ab/stop", by="olga", json=WHY)
    assert reply.status_code == 200, reply.text
    assert [order.action for order in desk.kafka.orders] == ["ab_stop"]


async def test_a_refusal_is_a_conflict_with_the_gatekeeper_s_reason(desk: Desk) -> None:
    desk.kafka.refuse = "a stage is running: canary; one release is tried at a time"
    reply = await desk.call("POST", "/ab", by="olga", json=WHY)
    assert (reply.status_code, reply.json()["type"]) == (409, "urn:twinloop:problem:refused")
    assert "one release is tried at a time" in reply.json()["detail"]


@pytest.mark.parametrize("wrong", [{"basis_points": 1001}, {"basis_points": 0}, {"units": 99}, {"share": 5}])
async def test_what_is_out_of_bounds_is_never_ordered(desk: Desk, wrong: dict[str, int]) -> None:
    reply = await desk.call("POST", "/ab", by="olga", json={**WHY, **wrong})
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")
    assert not desk.kafka.orders


async def test_a_repeated_key_starts_no_second_test(desk: Desk) -> None:
    headers = {"Idempotency-Key": "ab-4711"}
    first = await desk.call("POST", "/ab", by="olga", json=WHY, headers=headers)
    again = await desk.call("POST", "/ab", by="olga", json=WHY, headers=headers)
    assert first.json() == again.json()
    assert len(desk.kafka.orders) == 1


async def test_each_call_is_audited(desk: Desk) -> None:
    await desk.call("POST", "/ab", by="vera", json=WHY)
    await desk.call("POST", "/ab", by="olga", json=WHY)
    told = [(entry.actor, entry.action, entry.result) for entry in desk.kafka.audits]
    assert told == [("vera", "post.ab", "refused"), ("olga", "post.ab", "accepted")]


async def test_before_any_test_there_is_nothing_to_report(desk: Desk) -> None:
    empty = await shown(desk)
    assert (empty["release"], empty["running"], empty["reports"]) == (None, False, [])


async def test_a_running_test_shows_its_gates_and_what_is_still_needed(desk: Desk) -> None:
    begin(desk)
    said = progress(NOW, release=CANDIDATE, line="A/B 212 of 2000 units", needed="1788 more units")
    desk.feed("decisions", said, offset=13)
    running = await shown(desk)
    assert (running["running"], running["release"], running["active"]) == (True, CANDIDATE, ACTIVE)
    assert (running["units"], running["needed"], running["line"]) == (2000, said.needed, said.line)
    assert running["share"] > 0
    assert [gate["name"] for gate in running["gates"]] == ["promote:error_margin", "abort:error_margin"]


async def test_an_ended_test_is_reported_newest_first(desk: Desk) -> None:
    begin(desk)
    end(desk)
    begin(desk, epoch=8)
    end(desk, epoch=9)
    ended = await shown(desk)
    assert (ended["running"], ended["share"]) == (False, 0.0)
    assert [report["epoch"] for report in ended["reports"]] == [9, 7]
    assert [report["epoch"] for report in (await shown(desk, "?limit=1"))["reports"]] == [9]


async def test_a_rollback_ends_a_test_that_runs(desk: Desk) -> None:
    begin(desk)
    end(desk, kind="rollback")
    assert not (await shown(desk))["running"]


async def test_a_test_adds_nothing_to_the_canary_its_release_once_had(desk: Desk) -> None:
    desk.feed("decisions", decision(4, "canary", release=CANDIDATE), offset=8)
    desk.feed("decisions", decision(5, "promote", release=CANDIDATE), offset=10)
    begin(desk)
    desk.feed("decisions", progress(NOW, release=CANDIDATE), offset=13)
    canary = (await desk.call("GET", "/canary", by="vera")).json()
    assert (canary["running"], canary["series"]) == (False, [])
    assert (await shown(desk))["running"]
