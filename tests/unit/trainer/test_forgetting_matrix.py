from __future__ import annotations

import json
from typing import Any

from schemas.releases import Release
from services.trainer.core.evidence import EvidencePolicy, problems_of, training_evidence
from services.trainer.core.forgetting_matrix import forgetting_matrix, lost_updates
from services.trainer.core.model_card import ModelCard
from tests.unit.trainer.examples import NOW, accept, begin, ledger

FIRST, SECOND = "1" * 64, "2" * 64


def _metrics(*, after: float = 1.0, rows: int = 16) -> dict[Any, Any]:
    earlier = [
        {"update": FIRST, "rows": rows, "before": 1.0, "after": after},
        {"update": SECOND, "rows": rows, "before": 0.9, "after": 0.95},
    ]
    return {"law": {"forgetting": earlier, "probe_before": 0.9, "probe_after": 0.8, "loss": [1.0]}}


def _release(**changes: Any) -> Release:
    digests = dict.fromkeys(("law", "med", "fin", "gen"), "a" * 64)
    values: dict[str, Any] = {"adapters": digests, "indexes": digests, **changes}
    return Release.model_validate(
        {"foundation": "f" * 64, "embedder": "e" * 64, "rules": "b" * 64, "prompt": "c" * 64, **values}
    )


def test_the_matrix_holds_every_domain_and_every_earlier_update() -> None:
    matrix = forgetting_matrix(_metrics(after=0.5))

    assert [row.domain for row in matrix if row.is_untouched] == ["fin", "gen", "med"]
    law = [(row.knowledge, row.before, row.after) for row in matrix if row.domain == "law"]
    assert law[:2] == [(f"update {FIRST}", 1.0, 0.5), (f"update {SECOND}", 0.9, 0.95)]
    assert ("answers from a passage", 0.9, 0.8) in law


def test_an_earlier_update_that_was_lost_fails_the_candidate_and_is_named() -> None:
    (problem,) = problems_of(EvidencePolicy(), _metrics(after=0.5))

    assert problem == f"law: update {FIRST}, 16 rows 1.000 -> 0.500, allowed drop 0.3"
    assert problems_of(EvidencePolicy(), _metrics(after=0.75)) == ()


def test_few_rows_of_an_update_say_nothing() -> None:
    matrix = forgetting_matrix(_metrics(after=0.0, rows=7))

    assert lost_updates(matrix, max_drop=0.3, least_rows=8) == ()
    assert len(lost_updates(matrix, max_drop=0.3, least_rows=7)) == 1


def test_evidence_and_card_carry_matrix_window_and_verdict() -> None:
    book = ledger()
    accept(book, 1)
    run, metrics = begin(book), _metrics(after=0.5)
    policy = EvidencePolicy()

    evidence = training_evidence(
        run, metrics=metrics, artifacts={}, classifiers=(), policy=policy, finished_at=NOW + 5
    )
    changed = {"law": "9" * 64, "med": "a" * 64, "fin": "a" * 64, "gen": "a" * 64}
    card = ModelCard(run, _release(adapters=changed), _release(), "CC0-1.0", metrics, policy)
    told = json.loads(card.to_json())

    assert evidence.metrics["forgetting"] == told["forgetting"]
    assert evidence.problems == tuple(told["problems"])
    assert told["data_window"]["first_logged_at"] == run.rows[0].row.order.timestamp_ms
    assert told["evidence_policy"]["max_update_drop"] == 0.3
    assert told["domains"]["law"]["adapter_changed"] is True
    text = card.to_markdown().decode()
    assert f"| law | update {FIRST} | 16 | 1 | 0.5 |" in text
    assert "| med | adapter untouched: as in parent | | | |" in text
    assert "allowed drop 0.3" in text
    assert run.rows[0].row.rater not in text
