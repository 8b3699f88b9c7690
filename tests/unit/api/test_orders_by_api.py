"""An order through the API is the signed command the command line gives, in the caller's own name."""

from __future__ import annotations

import pytest

from tests.unit.api.desk import ACTIVE, CANDIDATE, Desk, decision, in_canary, progress
from twinloop.errors import SignatureError
from twinloop.signing import verify_document

pytestmark = pytest.mark.asyncio

WHY = {"reason": "incident 4711"}


async def test_an_order_is_signed_by_the_holder_s_key_and_names_the_holder(desk: Desk) -> None:
    in_canary(desk)
    reply = await desk.call("POST", "/rollback", by="olga", json={**WHY, "release": ACTIVE})
    assert reply.status_code == 200
    (order,) = desk.kafka.orders
    verify_document(order, desk.ring, role="operator")
    assert (order.actor, order.key_id, order.action) == ("olga", "operator-1", "rollback")
    assert (order.release, order.reason) == (ACTIVE, "incident 4711")
    assert order.expires_at - order.issued_at == 60_000
    assert reply.json()["decision"]["evidence"] == {"command": order.nonce}
    with pytest.raises(SignatureError):
        verify_document(order, desk.ring, role="approver")


async def test_a_refusal_of_the_gatekeeper_is_a_conflict_with_its_reason(desk: Desk) -> None:
    desk.kafka.refuse = "cannot roll back: nothing has served yet"
    reply = await desk.call("POST", "/rollback", by="olga", json=WHY)
    assert reply.status_code == 409
    assert "nothing has served yet" in reply.json()["detail"]
    assert reply.json()["type"] == "urn:twinloop:problem:refused"


async def test_an_order_nobody_has_answered_is_pending_and_not_done(desk: Desk) -> None:
    desk.kafka.is_silent = True
    reply = await desk.call("POST", "/pause", by="olga", json=WHY)
    assert (reply.status_code, reply.json()["result"]) == (202, "pending")


async def test_an_order_that_kafka_does_not_take_is_told(desk: Desk) -> None:
    desk.kafka.is_down = desk.kafka.is_silent = True
    reply = await desk.call("POST", "/pause", by="olga", json=WHY)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


async def test_a_swap_without_evidence_is_a_conflict_that_says_what_is_missing(desk: Desk) -> None:
    in_canary(desk, error_margin="open", p95="cleared")
    reply = await desk.call("POST", "/swap", json=WHY)
    assert reply.status_code == 409
    assert reply.json()["type"] == "urn:twinloop:problem:no-evidence"
    assert reply.json()["missing"] == ["promote:error_margin: promote:error_margin said"]
    assert not desk.kafka.orders


async def test_a_swap_while_promotion_is_paused_is_a_conflict_and_gives_no_order(desk: Desk) -> None:
    in_canary(desk, error_margin="cleared", p95="cleared")
    needed = "resume: every gate is cleared, but promotion is paused"
    desk.feed("decisions", progress(statuses={"promote:p95": "cleared"}, needed=needed), offset=8)
    reply = await desk.call("POST", "/swap", json=WHY)
    assert (reply.status_code, reply.json()["missing"]) == (409, [needed])
    assert not desk.kafka.orders


async def test_a_swap_before_any_candidate_is_staged_is_a_conflict(desk: Desk) -> None:
    desk.feed("decisions", decision(1, "bake_end"))
    reply = await desk.call("POST", "/swap", json=WHY)
    assert (reply.status_code, reply.json()["type"]) == (409, "urn:twinloop:problem:nothing-staged")


async def test_a_swap_of_another_release_than_the_staged_one_is_a_conflict(desk: Desk) -> None:
    in_canary(desk)
    reply = await desk.call("POST", "/swap", json={**WHY, "release": ACTIVE})
    assert (reply.status_code, reply.json()["type"]) == (409, "urn:twinloop:problem:other-candidate")


async def test_a_swap_with_every_gate_cleared_approves_the_candidate(desk: Desk) -> None:
    in_canary(desk, error_margin="cleared", p95="cleared")
    cleared = progress(statuses={"promote:p95": "cleared"}, needed="an approver: every gate is cleared")
    desk.feed("decisions", cleared, offset=8)
    assert (await desk.call("GET", "/review")).json()["approval"] == CANDIDATE
    reply = await desk.call("POST", "/swap", json=WHY)
    assert reply.status_code == 200
    assert [order.action for order in desk.kafka.orders] == ["approve"]


async def test_two_approvers_together_force_a_swap(desk: Desk) -> None:
    in_canary(desk)
    force = {**WHY, "force": True}
    first = await desk.call("POST", "/swap", by="anna", json=force)
    assert (first.status_code, first.json()["result"]) == (202, "waits_for_another")
    assert (await desk.call("GET", "/review")).json()["forced"]["actor"] == "anna"
    again = await desk.call("POST", "/swap", by="anna", json=force)
    assert again.status_code == 409
    assert "another approver" in again.json()["detail"]
    second = await desk.call("POST", "/swap", by="aron", json=force)
    assert (second.status_code, second.json()["result"]) == (200, "accepted")
    assert [(order.action, order.release) for order in desk.kafka.orders] == [("promote", CANDIDATE)] * 3
    for order in desk.kafka.orders:
        verify_document(order, desk.ring, role="approver")
    assert (await desk.call("GET", "/review")).json()["forced"] is None


async def test_half_a_forced_promotion_is_over_when_its_candidate_has_ended(desk: Desk) -> None:
    in_canary(desk)
    await desk.call("POST", "/swap", by="anna", json={**WHY, "force": True})
    desk.feed("decisions", decision(5, "abort"), offset=9)
    assert (await desk.call("GET", "/review")).json()["forced"] is None


async def test_every_call_is_audited_with_actor_route_and_result(desk: Desk) -> None:
    await desk.call("GET", "/status", by="vera")
    await desk.call("POST", "/rollback", by="vera", json=WHY)
    await desk.call("POST", "/pause", by="olga", json=WHY)
    await desk.call("GET", "/healthz", by=None)
    told = [(entry.actor, entry.action, entry.result, entry.via) for entry in desk.kafka.audits]
    assert told == [
        ("vera", "get.status", "accepted", "api"),
        ("vera", "post.rollback", "refused", "api"),
        ("olga", "post.pause", "accepted", "api"),
    ]


async def test_calls_without_a_token_are_audited_together(desk: Desk) -> None:
    for _ in range(50):
        await desk.call("GET", "/status", by=None)
    assert len(desk.kafka.audits) == 1
    desk.clock.advance(11_000)
    await desk.call("GET", "/status", by=None)
    assert "50 calls" in desk.kafka.audits[-1].detail
