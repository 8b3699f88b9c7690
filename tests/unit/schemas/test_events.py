"""What the contracts refuse."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.documents import DocumentChange
from schemas.feedback import Feedback
from schemas.queries import Query
from schemas.releases import Release
from schemas.routing import Canary, RoutingState

NOW = 1_790_000_000_000
ONE, TWO = "1" * 64, "2" * 64


def _state(**changes: object) -> RoutingState:
    fields: dict[str, object] = {
        "incarnation": "a" * 32,
        "epoch": 3,
        "active": "blue",
        "releases": {"blue": ONE, "green": TWO},
        "previous": None,
        "rules": {ONE: ONE, TWO: ONE},
        "phase": "steady",
        "decision_id": "d-3",
        "changed_at": NOW,
        "changed_by": "gatekeeper-0",
    }
    return RoutingState.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"id": "with blank"},
        {"text": ""},
        {"text": "x" * 8001},
        {"domain": "astrology"},
        {"deadline_ms": 0},
        {"priority": "urgent"},
        {"asked_at": -1},
        {"asked_at": "yesterday"},
    ],
)
def test_a_query_that_does_not_fit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Query.model_validate({"id": "q-1", "text": "What?", "asked_at": NOW, **change})


def test_a_query_without_subject_is_its_own_subject() -> None:
    query = Query(id="q-1", text="What?", asked_at=NOW, deadline_ms=5000)
    assert query.sticky_subject == "q-1"
    assert query.deadline_at == NOW + 5000


def test_feedback_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least one of"):
        Feedback(id="f", query_id="q", receipt="r", question="What?", rater="me", given_at=NOW)


def test_a_document_without_provenance_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs provenance"):
        DocumentChange(op="upsert", document_id="law-1", domain="law", changed_at=NOW, text="Something")


def test_a_release_names_every_domain() -> None:
    with pytest.raises(ValidationError, match="adapters lacks gen"):
        Release.model_validate(
            {
                "foundation": ONE,
                "embedder": ONE,
                "adapters": {"law": ONE, "med": ONE, "fin": ONE},
                "indexes": {"law": ONE, "med": ONE, "fin": ONE, "gen": ONE},
                "rules": ONE,
                "prompt": ONE,
            }
        )


def test_a_canary_stands_on_the_shadow_slot_and_takes_at_most_a_tenth() -> None:
    salt = "s" * 16
    assert _state(canary=Canary(slot="green", basis_points=1000, salt=salt)).canary is not None
    with pytest.raises(ValidationError, match="shadow slot"):
        _state(canary=Canary(slot="blue", basis_points=1000, salt=salt))
    with pytest.raises(ValidationError):
        Canary(slot="green", basis_points=1001, salt=salt)


def test_a_revoked_release_is_never_active_nor_on_canary() -> None:
    with pytest.raises(ValidationError, match="active release is revoked"):
        _state(revoked=(ONE,))
    with pytest.raises(ValidationError, match="canary's release is revoked"):
        _state(revoked=(TWO,), canary=Canary(slot="green", basis_points=100, salt="s" * 16))


def test_every_resident_release_has_its_rules() -> None:
    with pytest.raises(ValidationError, match="rules lacks"):
        _state(previous="3" * 64)
