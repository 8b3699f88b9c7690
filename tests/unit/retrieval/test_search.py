"""What a search returns, and to whom."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from tests.unit.retrieval.documents import make_document, make_documents
from twinloop.errors import ConfigError
from twinloop.retrieval.faiss_index import IndexKind
from twinloop.retrieval.hashing_embedder import HashingEmbedder
from twinloop.retrieval.index import DomainIndex

EMBEDDER = HashingEmbedder()
KINDS = get_args(IndexKind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_document_that_says_it_is_found_first(kind: IndexKind) -> None:
    index = DomainIndex.build(make_documents(range(100)), EMBEDDER, domain="law", kind=kind)
    queries = [f"fact {n} and case {n * 7919}" for n in (3, 50, 99)]
    assert [hits[0].document.id for hits in index.search(queries, 3)] == ["law-3", "law-50", "law-99"]


def test_hits_come_best_first_and_equal_scores_in_order_of_id() -> None:
    documents = [make_document(n, title="", text="the same words") for n in (5, 3, 9)]
    index = DomainIndex.build([*documents, make_document(1, title="", text="other")], EMBEDDER, domain="law")
    hits = index.search(["the same words"], 4)[0]
    assert [hit.document.id for hit in hits][:3] == ["law-3", "law-5", "law-9"]
    assert hits[0].score == pytest.approx(1.0)


def test_asking_for_more_than_there_is_gives_what_there_is() -> None:
    index = DomainIndex.build(make_documents(range(3)), EMBEDDER, domain="law")
    assert len(index.search(["fact"], 10)[0]) == 3


def test_a_query_without_words_finds_nothing() -> None:
    index = DomainIndex.build(make_documents(range(3)), EMBEDDER, domain="law")
    assert index.search(["", " ?! "], 3) == [[], []]
    assert index.search([], 3) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_restricted_document_is_only_shown_to_who_holds_all_its_labels(kind: IndexKind) -> None:
    documents = make_documents(range(60))
    documents.append(make_document(70, text="secret merger plan", access=("legal", "board")))
    index = DomainIndex.build(documents, EMBEDDER, domain="law", kind=kind)
    index = DomainIndex.load(index.files(), EMBEDDER)

    def found(*held: str) -> bool:
        return any(
            hit.document.id == "law-70" for hit in index.search(["secret merger plan"], 5, held=held)[0]
        )

    assert found("board", "legal", "other")
    assert not any([found(), found("legal"), found("public")])
    assert len(index.search(["secret merger plan"], 5)[0]) == 5


def test_a_reader_without_labels_finds_nothing_where_all_is_restricted() -> None:
    index = DomainIndex.build([make_document(1, access=("legal",))], EMBEDDER, domain="law")
    assert index.search(["fact 1"], 5) == [[]]


def test_vectors_of_another_width_are_refused() -> None:
    index = DomainIndex.build(make_documents(range(3)), EMBEDDER, domain="law")
    with pytest.raises(ConfigError, match="1024"):
        index.search_vectors(np.zeros((1, 3), dtype=np.float32), 1)


def test_a_document_is_found_by_its_id() -> None:
    index = DomainIndex.build(make_documents(range(3)), EMBEDDER, domain="law")
    found = index.document("law-2")
    assert found is not None
    assert found.title == "Title 2"
    assert index.document("law-9") is None
