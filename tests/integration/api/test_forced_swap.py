"""Two people and no fewer promote without the evidence, before the real gatekeeper."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from tests.integration.api.served import Served
from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World


def test_a_swap_without_evidence_needs_two_approvers_with_two_keys(
    world: World, start: Callable[..., Running], serve: Callable[..., Served], tokens: dict[str, str]
) -> None:
    start(policy={"promote": {"force_approvers": 2}, "canary": {"min_shadow": 5000}})
    world.start(queries_per_s=60)
    boot = world.wait_for_kind("genesis").state.active_release
    served = serve()
    time.sleep(1.5)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    world.wait_for_kind("canary")

    def swap(token: str, *, force: bool) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        body = {"reason": "hot fix, reviewed by hand", "force": force}
        return httpx.post(f"{served.address}/swap", json=body, headers=headers, timeout=30)

    def settled() -> bool:
        refused = swap(tokens["anna"], force=False)
        return refused.json()["type"] == "urn:twinloop:problem:no-evidence"

    world.wait_for(settled)
    first = swap(tokens["anna"], force=True)
    assert (first.status_code, first.json()["result"]) == (202, "waits_for_another"), first.text
    same_key = swap(tokens["aron"], force=True)
    assert same_key.status_code == 409
    assert "another key" in same_key.json()["detail"]
    agreed = swap(tokens["bea"], force=True)
    assert (agreed.status_code, agreed.json()["result"]) == (200, "accepted"), agreed.text
    promoted = world.wait_for_kind("promote")
    assert promoted.state.active_release == candidate
    assert "anna" in promoted.line
    assert "bea" in promoted.line
    assert {entry.via for entry in world.audits() if entry.action == "promote"} == {"api"}
