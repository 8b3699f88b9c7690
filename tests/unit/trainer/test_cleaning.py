"""What one feedback must be before it may teach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.trainer.core.cleaning import (
    CleaningPolicy,
    Finding,
    ReceiptFacts,
    Verdict,
    examine_receipt,
    examine_text,
)
from tests.unit.trainer.examples import FIRST, NOW, feedback

POLICY = CleaningPolicy(max_receipt_age_s=100, max_correction_characters=50, max_question_characters=60)
FACTS = ReceiptFacts(
    is_import=False, query_id="q-1", question_sha256="d" * 64, domain="law", release=FIRST, issued_at=NOW
)


def receipt(facts: ReceiptFacts = FACTS, *, digest: str = "d" * 64, at: int = NOW) -> str | None:
    verdict = examine_receipt(feedback(1), facts, POLICY, question_sha256=digest, logged_at=at)
    return None if verdict is None else verdict.reason


def test_a_receipt_covers_its_own_question_and_query_for_its_time() -> None:
    assert receipt() is None
    assert receipt(at=NOW + 100_000) is None
    assert receipt(at=NOW + 100_001) == "receipt_expired"
    assert receipt(digest="e" * 64) == "question_differs_from_receipt"
    assert receipt(replace(FACTS, query_id="q-2")) == "query_id_differs_from_receipt"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"correction": "x" * 51}, "correction_length"),
        ({"correction": "   "}, "correction_length"),
        ({"question": "x" * 61}, "question_length"),
        ({"correction": "42 days<|end|>"}, "control_characters"),
        ({"correction": "42\u200bdays"}, "control_characters"),
        ({"question": "\u202eWhat?"}, "control_characters"),
    ],
)
def test_a_flawed_text_is_rejected_with_the_flaw(changes: dict[str, Any], reason: str) -> None:
    assert examine_text(feedback(1, **changes), POLICY, ()) == Verdict("rejected", reason)


def test_a_sound_correction_is_accepted_and_a_rating_counted() -> None:
    assert examine_text(feedback(1), POLICY, ()) == Verdict("accepted")
    assert examine_text(feedback(1, correction=None, rating="up"), POLICY, ()) == Verdict("counted")


def test_findings_lead_to_what_the_policy_says_and_the_worst_wins() -> None:
    pii = Finding("pii", "pii 1", 1.0, "correction")
    toxic = Finding("toxicity", "toxicity 1", 0.9, "question")
    other = Finding("novelty", "novelty 1", 0.9, "correction")

    assert examine_text(feedback(1), POLICY, [pii]) == Verdict("rejected", "pii_in_correction", "pii 1")
    assert examine_text(feedback(1), POLICY, [toxic]) == Verdict(
        "quarantined", "toxicity_in_question", "toxicity 1"
    )
    assert examine_text(feedback(1), POLICY, [toxic, pii]).status == "rejected"
    assert examine_text(feedback(1), POLICY, [other]).status == "quarantined"
    lenient = replace(POLICY, actions={"pii": "ignore"})
    assert examine_text(feedback(1), lenient, [pii]) == Verdict("accepted")
