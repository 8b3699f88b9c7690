"""JSON Lines: provenance is required, passages are distinct, errors name file and line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.errors import ConfigError
from twinloop.importing.importer import Imported, import_files
from twinloop.importing.passages import split_passages
from twinloop.importing.rows import Terms

TERMS = Terms(retrieved_at=0)
ROW = {
    "id": "law-1",
    "domain": "law",
    "question": "When is notice due?",
    "answer": "30 days",
    "context": "Notice is due in 30 days.",
    "title": "NDA",
    "source": "LegalBench/x",
    "license": "CC BY 4.0",
}


def imported(
    tmp_path: Path, *rows: dict[str, Any] | str, terms: Terms = TERMS, max_words: int = 160
) -> Imported:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8"
    )
    return import_files([path], kind="jsonl", terms=terms, max_words=max_words)


def test_a_row_becomes_a_pair_and_a_document_with_provenance(tmp_path: Path) -> None:
    found = imported(tmp_path, ROW)
    assert found.refused == ()
    document = found.documents[0]
    assert (document.source, document.licence, document.title) == ("LegalBench/x", "CC BY 4.0", "NDA")
    assert found.pairs[0].document_id == document.id


@pytest.mark.parametrize("field", ["source", "license", "question", "answer"])
def test_a_row_without_provenance_or_content_is_refused_with_the_reason(tmp_path: Path, field: str) -> None:
    found = imported(tmp_path, ROW, "", {**ROW, "id": "law-2", field: " "})
    assert len(found.pairs) == 1
    name = "licence" if field == "license" else field
    assert [str(row) for row in found.refused] == [f"{tmp_path}/rows.jsonl:3: row law-2 has no {name}"]


def test_the_caller_may_state_the_terms_of_a_whole_file(tmp_path: Path) -> None:
    bare = {key: value for key, value in ROW.items() if key not in ("source", "license", "domain")}
    found = imported(tmp_path, bare, terms=Terms(retrieved_at=0, source="s", licence="MIT", domain="fin"))
    assert (found.documents[0].licence, found.documents[0].domain) == ("MIT", "fin")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{broken", "not JSON"),
        ("[]", "not a JSON object"),
        ({**ROW, "domain": "cooking"}, "domain 'cooking' is not one of"),
        ({**ROW, "id": "a b"}, "is no identifier"),
        ({**ROW, "id": ""}, "is no identifier"),
        ({**ROW, "title": "x" * 501}, "title is longer"),
        ({**ROW, "context": "x" * 30_000}, "a passage is longer"),
        ({**ROW, "question": ["a"]}, "has no question"),
    ],
)
def test_an_unusable_row_is_refused_with_its_line(
    tmp_path: Path, row: dict[str, Any] | str, reason: str
) -> None:
    found = imported(tmp_path, row, {**ROW, "id": "law-9"})
    assert [pair.id for pair in found.pairs] == ["law-9"]
    assert found.refused[0].line == 1
    assert reason in found.refused[0].reason


def test_an_id_read_before_is_refused(tmp_path: Path) -> None:
    assert imported(tmp_path, ROW, ROW).refused[0].reason == "row id law-1 was already read"


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"id": "ü"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.jsonl: cannot be read as UTF-8"):
        import_files([path], kind="jsonl", terms=TERMS)


def test_one_passage_quoted_by_many_rows_is_one_document(tmp_path: Path) -> None:
    found = imported(tmp_path, *({**ROW, "id": f"law-{n}"} for n in range(5)))
    assert len(found.documents) == 1
    assert {pair.document_id for pair in found.pairs} == {found.documents[0].id}


def test_importing_again_gives_the_same_documents(tmp_path: Path) -> None:
    assert imported(tmp_path, ROW) == imported(tmp_path, ROW)


def test_a_pair_points_at_the_passage_that_holds_its_answer(tmp_path: Path) -> None:
    context = "One two three. " * 10 + "The answer is 30 days. " + "Four five six. " * 10
    found = imported(tmp_path, {**ROW, "context": context}, max_words=20)
    holding = next(document for document in found.documents if document.id == found.pairs[0].document_id)
    assert "30 days" in holding.text
    assert all(len(document.text.split()) <= 20 for document in found.documents)


@given(st.text(alphabet="ab .!?\n", max_size=300), st.integers(1, 20))
def test_splitting_loses_no_word_and_keeps_the_limit(text: str, limit: int) -> None:
    passages = split_passages(text, max_words=limit)
    assert " ".join(passages).split() == text.split()
    assert all(0 < len(passage.split()) <= limit for passage in passages)


DATA = Path(os.environ.get("TWINLOOP_DATA") or Path(__file__).parents[4] / "shared" / "data")


@pytest.mark.parametrize("domain", ["law", "med", "fin", "gen"])
def test_the_open_data_slices_are_taken_whole(domain: str) -> None:
    path = DATA / f"{domain}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set TWINLOOP_DATA to a folder of JSON Lines files")
    found = import_files([path], kind="jsonl", terms=TERMS)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert found.refused == ()
    assert len(found.pairs) == len(rows)
    assert len(found.documents) >= len({row["context"] for row in rows if row["context"]})
    assert len({document.id for document in found.documents}) == len(found.documents)
    assert all(document.licence and document.source for document in found.documents)
