"""Whatever a call comes to, it is audited and counted."""

from __future__ import annotations

import pytest

from services.api.core.access_rules import audit_action
from tests.unit.api.desk import Desk

pytestmark = pytest.mark.asyncio


def counted(desk: Desk, route: str, method: str, status: int) -> float:
    labels = {"route": route, "method": method, "status": str(status)}
    return desk.parts.registry.get_sample_value("twinloop_api_requests_total", labels) or 0.0


async def test_an_error_nobody_foresaw_is_a_problem_audited_and_counted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(desk.client, "ask", broken)
    reply = await desk.call("POST", "/answer", by="vera", json={"question": "why?"})
    assert (reply.status_code, reply.json()["type"]) == (500, "urn:twinloop:problem:unexpected")
    assert reply.headers["content-type"] == "application/problem+json"
    assert "secret" not in reply.text
    (entry,) = desk.kafka.audits
    assert (entry.actor, entry.action, entry.result, entry.detail) == (
        "vera",
        "post.answer",
        "failed",
        "status 500",
    )
    assert counted(desk, "/answer", "POST", 500) == 1


@pytest.mark.parametrize("method", ["M!#X", "A" * 200, "PROPFIND"])
async def test_a_made_up_method_is_refused_like_any_other_call_without_a_token(
    desk: Desk, method: str
) -> None:
    reply = await desk.call(method, "/status", by=None)
    assert reply.status_code == 401
    (entry,) = desk.kafka.audits
    assert (entry.actor, entry.action, entry.result) == ("anonymous", "other.unknown", "refused")


async def test_a_known_method_keeps_its_name_in_the_audit() -> None:
    assert audit_action("DELETE", "unknown") == "delete.unknown"
