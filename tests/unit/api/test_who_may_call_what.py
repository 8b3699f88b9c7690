"""Every route with every role, as one table; nothing is open that is not said to be."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.core.access_rules import ACCESS, ANONYMOUS, template_of
from tests.unit.api.desk import CANDIDATE, DOCUMENTS, Desk, in_canary

ROLES = ("nobody", "viewer", "operator", "approver")
HOLDER = {"nobody": None, "viewer": "vera", "operator": "olga", "approver": "anna"}
V, O, A = "viewer", "operator", "approver"  # noqa: E741
ORDER = {"reason": "a test"}
QUESTION = {"model": "twinloop", "messages": [{"role": "user", "content": "why?"}]}
RATED = {"query_id": "q-1", "receipt": "a.b.c", "question": "why?", "rating": "up"}
CHANGE = {
    **ORDER,
    "patch": [{"op": "replace", "path": "/rules/top_k", "value": 3}],
    "base": DOCUMENTS.model_dump(),
}
DOCUMENT = {"op": "delete", "document_id": "law-1", "domain": "law", "changed_at": 1}

TABLE: list[tuple[str, str, dict[str, Any] | None, str, int]] = [
    # method, path, body, least role, status for whoever has it
    ("GET", "/healthz", None, "nobody", 200),
    ("GET", "/readyz", None, "nobody", 503),
    ("GET", "/metrics", None, "nobody", 200),
    ("GET", "/", None, "nobody", 200),
    ("GET", "/page/page.js", None, "nobody", 200),
    ("GET", "/openapi.json", None, V, 200),
    ("GET", "/whoami", None, V, 200),
    ("GET", "/status", None, V, 200),
    ("GET", "/releases", None, V, 200),
    ("GET", "/decisions", None, V, 200),
    ("GET", "/history", None, V, 200),
    ("GET", "/qa", None, V, 200),
    ("GET", "/canary", None, V, 200),
    ("GET", "/ab", None, V, 200),
    ("POST", "/answer", {"question": "why?"}, V, 200),
    ("GET", "/v1/models", None, V, 200),
    ("GET", "/v1/models/twinloop", None, V, 200),
    ("POST", "/v1/chat/completions", QUESTION, V, 200),
    ("POST", "/v1/feedback", RATED, V, 202),
    ("GET", "/v1/feedback/f-1", None, V, 404),
    ("GET", "/review", None, O, 200),
    ("POST", "/ingest", {"documents": [DOCUMENT]}, O, 202),
    ("POST", "/train", ORDER, O, 202),
    ("POST", "/canary", {**ORDER, "basis_points": 600}, O, 200),
    ("POST", "/ab", {**ORDER, "basis_points": 500, "units": 1000}, O, 200),
    ("POST", "/ab/stop", ORDER, O, 200),
    ("POST", "/abort", ORDER, O, 200),
    ("POST", "/pause", ORDER, O, 200),
    ("POST", "/resume", ORDER, O, 200),
    ("POST", "/rollback", ORDER, O, 200),
    ("GET", "/pr", None, O, 200),
    ("GET", "/pr/pr-1", None, O, 404),
    ("POST", "/pr", CHANGE, O, 200),
    ("POST", "/pr/pr-1/reject", ORDER, O, 404),
    ("POST", "/approve", ORDER, A, 200),
    ("POST", "/swap", {**ORDER, "release": CANDIDATE}, A, 409),
    ("POST", "/pr/pr-1/approve", ORDER, A, 404),
]


def test_the_table_names_every_route_with_the_role_the_gate_asks_for() -> None:
    shown = {(method, path): role for method, path, _, role, _ in TABLE}
    for (method, template), role in ACCESS.items():
        known = [(way, path) for way, path in shown if way == method and template_of(way, path) == template]
        assert known, f"{method} {template} is missing from the table"
        assert shown[known[0]] == ("nobody" if role == ANONYMOUS else role)
    assert len(TABLE) == len(ACCESS)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("method", "path", "body", "least", "status"), TABLE, ids=[f"{row[0]} {row[1]}" for row in TABLE]
)
@pytest.mark.asyncio
async def test_a_route_is_open_to_its_role_and_those_above_and_to_nobody_else(
    desk: Desk, method: str, path: str, body: Any, least: str, status: int, role: str
) -> None:
    in_canary(desk)
    reply = await desk.call(method, path, by=HOLDER[role], json=body)
    if ROLES.index(role) >= ROLES.index(least):
        assert reply.status_code == status, reply.text
    else:
        assert reply.status_code == (401 if role == "nobody" else 403)
        assert not desk.kafka.orders
        assert not desk.client.asked
        assert not desk.kafka.said


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer tl_nobody", "Basic dXNlcjpwdw==", "tl_x", "Bearer \xe4"]
)
@pytest.mark.asyncio
async def test_what_is_no_token_is_nobody_s(desk: Desk, header: str) -> None:
    reply = await desk.call("GET", "/status", by=None, headers={"Authorization": header.encode("latin-1")})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.asyncio
async def test_what_does_not_exist_is_told_to_holders_of_a_token_only(desk: Desk) -> None:
    assert (await desk.call("GET", "/secrets", by=None)).status_code == 401
    assert (await desk.call("GET", "/secrets", by="vera")).status_code == 404
    known = await desk.call("DELETE", "/status", by="vera")
    assert known.status_code == 405
    assert known.headers["allow"] == "GET"


@pytest.mark.parametrize("name", ["../settings.py", "%2e%2e/settings.py", "..%2fsettings.py", "none.css"])
@pytest.mark.asyncio
async def test_the_page_serves_its_own_files_and_no_others(desk: Desk, name: str) -> None:
    reply = await desk.call("GET", f"/page/{name}", by=None)
    assert reply.status_code in (401, 404)
    assert "class Api" not in reply.text


@pytest.mark.asyncio
async def test_the_page_may_load_nothing_from_elsewhere(desk: Desk) -> None:
    reply = await desk.call("GET", "/", by=None)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
