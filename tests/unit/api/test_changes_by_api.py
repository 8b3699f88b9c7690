"""A change proposed and reviewed through the API: signed in the caller's name, decided by the trainer's rules."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.changes import ChangeProposed, ChangeReviewed
from tests.unit.api.desk import DOCUMENTS, Desk, in_canary
from twinloop.canonical import digest_of
from twinloop.signing import verify_document

pytestmark = pytest.mark.asyncio

CHANGE: dict[str, Any] = {
    "reason": "escrow is law",
    "patch": [{"op": "add", "path": "/rules/domains/law/keywords/escrow", "value": 2.0}],
    "base": DOCUMENTS.model_dump(),
}
WHY = {"reason": "report read"}


async def propose(desk: Desk, by: str = "olga", **changes: Any) -> str:
    reply = await desk.call("POST", "/pr", by=by, json={**CHANGE, **changes})
    assert reply.status_code == 200, reply.text
    name: str = reply.json()["id"]
    return name


async def test_a_proposal_is_signed_by_its_author_and_shows_what_it_would_move(desk: Desk) -> None:
    name = await propose(desk)
    (said,) = desk.kafka.said
    assert isinstance(said, ChangeProposed)
    verify_document(said, desk.ring, role="operator")
    assert (said.id, said.author, said.key_id, said.via) == (name, "olga", "operator-1", "api")
    shown = (await desk.call("GET", f"/pr/{name}", by="olga")).json()
    assert (shown["stage"], shown["report"]["moved"], shown["patch"]) == ("open", 1, CHANGE["patch"])
    assert (await desk.call("GET", "/status", by="vera")).json()["open_changes"] == 1
    listed = (await desk.call("GET", "/pr", by="olga")).json()
    assert (listed["total"], listed["changes"][0]["id"]) == (1, name)


async def test_another_person_approves_that_very_patch(desk: Desk) -> None:
    name = await propose(desk)
    reply = await desk.call("POST", f"/pr/{name}/approve", by="anna", json=WHY)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["stage"], reply.json()["approved_by"]) == ("approved", "anna")
    proposal, review = desk.kafka.said
    assert isinstance(review, ChangeReviewed)
    verify_document(review, desk.ring, role="approver")
    assert review.proposal == digest_of(proposal)
    assert reply.json()["reviews"] == [
        {"reviewer": "anna", "verdict": "approve", "reason": "report read", "at": review.reviewed_at}
    ]


async def test_nobody_approves_a_change_of_their_own(desk: Desk) -> None:
    name = await propose(desk, by="anna")
    refused = await desk.call("POST", f"/pr/{name}/approve", by="anna", json=WHY)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:twinloop:problem:refused")
    assert "another person with another key" in refused.json()["detail"]
    assert (await desk.call("POST", f"/pr/{name}/approve", by="aron", json=WHY)).status_code == 200


async def test_an_author_may_withdraw_and_then_nobody_can_approve(desk: Desk) -> None:
    name = await propose(desk)
    withdrawn = await desk.call("POST", f"/pr/{name}/reject", by="olga", json={"reason": "thought again"})
    assert (withdrawn.status_code, withdrawn.json()["stage"]) == (200, "rejected")
    late = await desk.call("POST", f"/pr/{name}/approve", by="anna", json=WHY)
    assert (late.status_code, "only an open change" in late.json()["detail"]) == (409, True)


async def test_a_patch_that_is_not_sound_is_unprocessable_and_a_stale_one_a_conflict(desk: Desk) -> None:
    desk.kafka.refuse = "/rules/top_k: 99 is above the maximum 10"
    reply = await desk.call("POST", "/pr", by="olga", json=CHANGE)
    assert (reply.status_code, reply.json()["type"]) == (422, "urn:twinloop:problem:change-bounds")
    assert reply.json()["detail"] == desk.kafka.refuse
    desk.kafka.refuse = None
    other = {**CHANGE, "base": {"rules": "0" * 64, "prompt": "0" * 64}}
    stale = await desk.call("POST", "/pr", by="olga", json=other)
    assert (stale.status_code, stale.json()["type"]) == (409, "urn:twinloop:problem:change-stale")


async def test_a_repeated_request_proposes_once_also_after_a_restart(desk: Desk) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await desk.call("POST", "/pr", by="olga", json=CHANGE, headers=headers)
    again = await desk.call("POST", "/pr", by="olga", json=CHANGE, headers=headers)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    identity = desk.kafka.said[0].id  # type: ignore[union-attr]
    assert identity == first.json()["id"]
    assert len(desk.kafka.said) == 1


async def test_a_change_nobody_has_looked_at_is_pending(desk: Desk) -> None:
    desk.kafka.is_silent = True
    reply = await desk.call("POST", "/pr", by="olga", json=CHANGE)
    assert (reply.status_code, reply.json()["stage"]) == (202, "unexamined")


async def test_a_proposal_that_names_no_base_is_for_the_active_release(desk: Desk) -> None:
    in_canary(desk)
    await propose(desk, base=None)
    (said,) = desk.kafka.said
    assert isinstance(said, ChangeProposed)
    assert said.base == DOCUMENTS


async def test_without_a_release_there_is_nothing_to_change(desk: Desk) -> None:
    reply = await desk.call("POST", "/pr", by="olga", json={**CHANGE, "base": None})
    assert (reply.status_code, reply.json()["type"]) == (503, "urn:twinloop:problem:not-ready")


@pytest.mark.parametrize(
    "patch",
    [
        [],
        [{"op": "move", "path": "/rules/top_k", "from": "/rules/fallback"}],
        [{"op": "add", "path": "rules", "value": 1}],
        [{"op": "add", "path": "/rules/domains/law", "value": {"keywords": {}}}],
    ],
)
async def test_what_is_no_patch_of_single_values_is_not_published(desk: Desk, patch: Any) -> None:
    reply = await desk.call("POST", "/pr", by="olga", json={**CHANGE, "patch": patch})
    assert reply.status_code == 422
    assert not desk.kafka.said
