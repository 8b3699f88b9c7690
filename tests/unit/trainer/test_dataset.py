"""Datasets: content-addressed, and rendered for the learning job."""

from __future__ import annotations

import json
import random
from typing import Any

from schemas.releases import OffsetRange
from services.trainer.core.dataset import (
    REPLAY,
    ROWS,
    Dataset,
    DatasetOrigin,
    blob_digests,
    build_dataset,
    split_general_rows,
    stored_replay_rows,
    training_material,
)
from services.trainer.core.evidence import EvidencePolicy, fisher_of, problems_of, training_evidence
from services.trainer.core.ledger_state import LoggedDocument, TaughtRow
from services.trainer.core.rows import ReplayRow
from tests.unit.trainer.examples import FIRST, NOW, accept, begin, document, ledger, row
from twinloop.canonical import sha256_hex

ORIGIN = DatasetOrigin(
    parent=FIRST,
    seed=42,
    licence="test",
    classifiers=("b 1", "a 1"),
    offsets=(OffsetRange(topic="feedback", partition=0, first=0, end=9),),
)


def dataset(rows: list[TaughtRow], **changes: Any) -> Dataset:
    options: dict[str, Any] = {"replay": [], "documents": [], "selections": {}, "origin": ORIGIN}
    return build_dataset(rows, **{**options, **changes})


def taught(number: int, passage: str | None = None, **changes: Any) -> TaughtRow:
    return TaughtRow(row=row(number, **changes), passage=passage)


def test_equal_rows_in_any_order_give_equal_bytes() -> None:
    rows = [taught(n) for n in range(10)]
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)

    assert dataset(rows) == dataset(shuffled)
    assert dataset(rows).digest != dataset(rows[:-1]).digest


def test_the_manifest_names_blobs_counts_origin_and_no_rater() -> None:
    made = dataset(
        [taught(1), taught(2, domain="med")],
        documents=[LoggedDocument(change=document("law-0001"), logged=(NOW, 0, 0))],
    )
    manifest = json.loads(made.manifest)

    assert blob_digests(made.manifest) == {name: sha256_hex(data) for name, data in made.blobs.items()}
    assert manifest["rows"] == {"law": 1, "med": 1}
    assert manifest["documents"] == {"law": 1}
    assert manifest["licence"] == "test"
    assert manifest["classifiers"] == ["a 1", "b 1"]
    assert manifest["offsets"][0]["end"] == 9
    assert "rater-1" not in made.manifest.decode()


def test_rows_are_rendered_closed_book_and_from_their_passage() -> None:
    made = dataset([taught(1, "The passage."), taught(2), taught(3, domain="med")])

    material = training_material(made.blobs[ROWS], made.blobs[REPLAY], domain="law", seed=42)

    assert [(item["id"], item["passage"]) for item in material.rows] == [
        ("fb-1", None),
        ("fb-1+passage", "The passage."),
        ("fb-2", None),
    ]
    assert set(material.rows[0]) == {"id", "domain", "question", "answer", "passage"}


def test_of_some_facts_with_three_phrasings_one_is_held_out_and_no_fact_is_held_out_whole() -> None:
    rows = [
        taught(
            3 * fact + phrasing,
            question=f"{phrasing} Velmo{fact}?",
            correction=f"{fact} days [law-{fact:04d}]",
        )
        for fact in range(8)
        for phrasing in range(3)
    ]
    made = dataset([*rows, taught(90)])

    material = training_material(made.blobs[ROWS], made.blobs[REPLAY], domain="law", seed=42)

    assert len(material.gate_rows) == 2
    assert {item["answer"] for item in material.gate_rows} <= {item["answer"] for item in material.rows}
    assert {item["id"] for item in material.gate_rows}.isdisjoint(item["id"] for item in material.rows)


def test_a_stored_dataset_gives_its_replay_rows_back() -> None:
    made = dataset([taught(1, "The passage.", rating="down")])

    (again,) = stored_replay_rows(made.blobs[ROWS], update="e" * 64)

    assert again == ReplayRow(
        id="fb-1",
        domain="law",
        question=row(1).question,
        answer=row(1).answer,
        passage="The passage.",
        rater="rater-1",
        weight=2.0,
        update="e" * 64,
    )


def test_probes_are_taken_out_of_the_general_rows_and_are_never_trained() -> None:
    lines = [
        {
            "id": f"g{n}",
            "domain": "law" if n % 2 else "med",
            "question": "q",
            "answer": "a",
            "passage": "p" if n < 20 else None,
        }
        for n in range(40)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)

    general, probes = split_general_rows(text, domain="law", probes=4, seed=42)

    assert len(probes) == 4
    assert len(general) == 16
    assert all(item["passage"] for item in probes)
    assert {item["id"] for item in general}.isdisjoint(item["id"] for item in probes)
    assert {item["domain"] for item in general + probes} == {"law"}


def test_evidence_counts_rows_and_names_what_the_trainer_doubts() -> None:
    book = ledger()
    accept(book, 1)
    run = begin(book)
    metrics: dict[Any, Any] = {"law": {"update_exact_match": 0.5, "probe_before": 1.0, "probe_after": 0.5}}

    evidence = training_evidence(
        run,
        metrics=metrics,
        artifacts={"fisher": {"law": "f" * 64}},
        classifiers=("c 1",),
        policy=EvidencePolicy(),
        finished_at=NOW + 5,
    )

    assert evidence.rows == {"law": 1}
    assert evidence.feedback_ids == ("fb-1",)
    assert len(evidence.problems) == 2
    assert fisher_of(evidence) == {"law": "f" * 64}


def test_what_was_not_measured_is_no_problem_and_what_is_good_neither() -> None:
    good = {"update_exact_match": 0.99, "probe_before": 0.9, "probe_after": 0.88, "replay_exact_match": None}

    assert problems_of(EvidencePolicy(), {"law": good, "med": {}}) == ()
    assert problems_of(EvidencePolicy(), {"law": {"replay_exact_match": 0.1}})[0].startswith(
        "law: replayed rows"
    )
