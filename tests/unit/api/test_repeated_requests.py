"""A request repeated under one Idempotency-Key is done once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.api.desk import Desk, in_canary, make_desk

pytestmark = pytest.mark.asyncio

WHY = {"reason": "incident"}
KEY = {"Idempotency-Key": "k-1"}


def gated(desk: Desk) -> asyncio.Event:
    """Answers wait from now on until this is set."""
    gate = asyncio.Event()
    asked = desk.client.ask

    async def slowly(text: str, **options: object) -> object:
        await gate.wait()
        return await asked(text, **options)

    desk.client.ask = slowly  # type: ignore[assignment]
    return gate


async def test_the_second_gets_the_reply_of_the_first(desk: Desk) -> None:
    in_canary(desk)
    first = await desk.call("POST", "/rollback", by="olga", json=WHY, headers=KEY)
    second = await desk.call("POST", "/rollback", by="olga", json=WHY, headers=KEY)
    assert len(desk.kafka.orders) == 1
    assert second.content == first.content
    assert (second.headers["idempotency-replayed"], "idempotency-replayed" in first.headers) == (
        "true",
        False,
    )


async def test_a_key_is_its_callers_and_its_routes_own(desk: Desk) -> None:
    in_canary(desk)
    for by, path in (("olga", "/pause"), ("anna", "/pause"), ("olga", "/resume")):
        assert (await desk.call("POST", path, by=by, json=WHY, headers=KEY)).status_code == 200
    assert len({order.nonce for order in desk.kafka.orders}) == 3


async def test_another_body_under_the_same_key_is_refused(desk: Desk) -> None:
    await desk.call("POST", "/pause", by="olga", json=WHY, headers=KEY)
    other = await desk.call("POST", "/pause", by="olga", json={"reason": "another"}, headers=KEY)
    assert (other.status_code, other.json()["type"]) == (422, "urn:twinloop:problem:idempotency-reuse")


async def test_a_failure_of_ours_may_be_tried_again_with_the_key(desk: Desk) -> None:
    desk.client.is_silent = True
    assert (await desk.call("POST", "/answer", json={"question": "why?"}, headers=KEY)).status_code == 504
    desk.client.is_silent = False
    assert (await desk.call("POST", "/answer", json={"question": "why?"}, headers=KEY)).status_code == 200


async def test_after_a_restart_the_key_still_makes_the_same_order(desk: Desk) -> None:
    """The gatekeeper refuses a nonce it has seen, and an API that has read its outcome does not even ask."""
    in_canary(desk)
    await desk.call("POST", "/pause", by="olga", json=WHY, headers=KEY)
    desk.app.middleware_stack = None
    again = await desk.call("POST", "/pause", by="olga", json=WHY, headers=KEY)
    assert again.status_code == 200
    assert "idempotency-replayed" not in again.headers
    assert len(desk.kafka.orders) == 1


async def test_a_question_of_one_key_keeps_its_query_id(desk: Desk) -> None:
    await desk.call("POST", "/answer", json={"question": "why?"}, headers=KEY)
    desk.app.middleware_stack = None
    await desk.call("POST", "/answer", json={"question": "why?"}, headers=KEY)
    assert len({options["query_id"] for _, options in desk.client.asked}) == 1


async def test_while_the_first_is_answered_the_second_is_told_to_wait(desk: Desk) -> None:
    gate = gated(desk)
    first = asyncio.create_task(desk.call("POST", "/answer", json={"question": "why?"}, headers=KEY))
    await asyncio.sleep(0.02)
    second = await desk.call("POST", "/answer", json={"question": "why?"}, headers=KEY)
    gate.set()
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")
    assert (await first).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\there", "\xe4"])
async def test_a_key_that_is_none_is_refused(desk: Desk, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    reply = await desk.call("POST", "/pause", by="olga", json=WHY, headers=headers)
    assert reply.status_code == 400


async def test_the_oldest_keys_go_first(tmp_path: object) -> None:
    desk = make_desk(tmp_path, idempotency_keys=2)  # type: ignore[arg-type]
    for number in range(4):
        await desk.call("POST", "/train", by="olga", json=WHY, headers={"Idempotency-Key": f"k-{number}"})
    kept = await desk.call("POST", "/train", by="olga", json=WHY, headers={"Idempotency-Key": "k-3"})
    gone = await desk.call("POST", "/train", by="olga", json=WHY, headers={"Idempotency-Key": "k-0"})
    assert "idempotency-replayed" in kept.headers
    assert "idempotency-replayed" not in gone.headers


async def test_a_request_that_is_still_being_answered_is_never_forgotten(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, idempotency_keys=1, idempotency_s=60)
    gate = gated(desk)
    question = {"question": "why?"}
    first = asyncio.create_task(desk.call("POST", "/answer", json=question, headers=KEY))
    await asyncio.sleep(0.02)
    desk.clock.advance(61_000)
    for number in range(3):
        await desk.call("POST", "/train", by="olga", json=WHY, headers={"Idempotency-Key": f"k-{number + 2}"})
    second = await desk.call("POST", "/answer", json=question, headers=KEY)
    gate.set()
    assert second.status_code == 409
    assert (await first).status_code == 200
    assert len(desk.client.asked) == 1
