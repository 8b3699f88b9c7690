"""Examples of contracts that the API hands on as they were logged; those of its own documents stand beside them."""

from __future__ import annotations

from typing import Any

ACTIVE = "c40ffd4b1da7805cbba7f81a2f97c3ef3aa9d1455588357845a94165683a9c23"
CANDIDATE = "2ed4cfc8a1b1cc6631d6b2bf70b00173ac9d8eb3d6626473d005c8ede9582bcc"
RULES = "6c621d1a05138a7888d37d9269a9da8e2e11e4aced2f6cfd24b05ab1b9e61bb0"
PROMPT = "148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940"

DECISION: dict[str, Any] = {
    "decision_id": "decision-4",
    "kind": "canary",
    "epoch": 4,
    "state": {
        "version": 1,
        "incarnation": "0" * 31 + "1",
        "epoch": 4,
        "active": "blue",
        "releases": {"blue": ACTIVE, "green": CANDIDATE},
        "previous": None,
        "canary": {"slot": "green", "basis_points": 500, "salt": "6" * 64},
        "rules": {ACTIVE: RULES, CANDIDATE: RULES},
        "revoked": [],
        "phase": "canary",
        "decision_id": "decision-4",
        "changed_at": 1_790_000_040_000,
        "changed_by": "gatekeeper-0",
        "key_id": "gatekeeper-1",
        "signature": "A" * 86,
    },
    "release": CANDIDATE,
    "reason": "qa_passed",
    "line": "canary 2ed4cfc8: QA passed, 5 % of subjects",
    "evidence": {"qa": {"pass_rate": 0.97}},
    "policy": "8" * 64,
    "input_offset": 812,
    "previous": "0" * 64,
    "decided_at": 1_790_000_040_000,
    "software": "1.0.0",
}
"""A candidate got its first users."""

ANSWER: dict[str, Any] = {
    "query_id": "q-1",
    "answered_at": 1_790_000_000_040,
    "text": "42 days [law-0042]",
    "citations": [
        {
            "document_id": "law-0042",
            "title": "Contract Zorvan",
            "source": "contract register",
            "retrieved": True,
        }
    ],
    "domain": "law",
    "release": CANDIDATE,
    "slot": "green",
    "arm": "shadow",
    "epoch": 4,
    "adapter": "a" * 64,
    "index": "b" * 64,
    "rules": RULES,
    "receipt": f"e30.aW5mZXJlbmNlLTE.{'A' * 86}",
    "timings": {"queued_ms": 3.0, "retrieval_ms": 0.4, "generation_ms": 31.5, "total_ms": 34.9},
}
"""A user's question, answered by the shadow."""

FEEDBACK_STATUS: dict[str, Any] = {
    "feedback_id": "f-1",
    "query_id": "q-1",
    "status": "trained",
    "domain": "law",
    "release": CANDIDATE,
    "at": 1_790_000_600_000,
}
"""A correction that was learnt."""
