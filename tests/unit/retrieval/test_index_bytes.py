"""An index's bytes depend on its documents alone, and only bytes that fit together are loaded."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.retrieval.documents import make_document, make_documents
from twinloop.errors import ArtifactError, InvalidEvent
from twinloop.retrieval.faiss_index import IndexKind
from twinloop.retrieval.hashing_embedder import HashingEmbedder
from twinloop.retrieval.index import DomainIndex

EMBEDDER = HashingEmbedder(dim=64)
KINDS = get_args(IndexKind)


def built(*numbers: int, kind: IndexKind = "flat") -> DomainIndex:
    return DomainIndex.build(make_documents(numbers), EMBEDDER, domain="law", kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_documents_does_not_change_the_bytes(kind: IndexKind) -> None:
    assert built(*range(200), kind=kind).files() == built(*reversed(range(200)), kind=kind).files()


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_keeps_bytes_and_answers(kind: IndexKind) -> None:
    index = built(*range(200), kind=kind)
    loaded = DomainIndex.load(index.files(), HashingEmbedder(dim=64), domain="law")
    assert loaded.files() == index.files()
    assert loaded.search(["fact 17 about contracts"], 5) == index.search(["fact 17 about contracts"], 5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_erased_document_leaves_the_bytes_of_an_index_that_never_had_it(kind: IndexKind) -> None:
    loaded = DomainIndex.load(built(*range(120), kind=kind).files(), EMBEDDER)
    assert (
        loaded.apply(deletes=["law-7"]).files()
        == built(*(n for n in range(120) if n != 7), kind=kind).files()
    )


@settings(max_examples=40, deadline=None)
@given(
    before=st.sets(st.integers(0, 30)),
    changes=st.lists(st.tuples(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30))), max_size=4),
)
def test_any_history_gives_the_bytes_of_a_fresh_build(
    before: set[int], changes: list[tuple[set[int], set[int]]]
) -> None:
    index, expected = built(*before), {n: make_document(n) for n in before}
    for upserts, deletes in changes:
        fresh = {n: make_document(n, text=f"changed {n} {len(deletes)}") for n in upserts}
        index = index.apply(fresh.values(), [f"law-{n}" for n in deletes])
        expected = {n: d for n, d in expected.items() if n not in deletes} | fresh
    assert index.files() == DomainIndex.build(expected.values(), EMBEDDER, domain="law").files()


def test_only_new_texts_are_embedded_again() -> None:
    class Counting(HashingEmbedder):
        seen = 0

        def embed(self, texts):  # type: ignore[no-untyped-def]
            self.seen += len(texts)
            return super().embed(texts)

    embedder = Counting(dim=64)
    index = DomainIndex.build(make_documents(range(10)), embedder, domain="law")
    index.apply([make_document(3), make_document(4, text="new"), make_document(99)], ["law-1"])
    assert embedder.seen == 10 + 2


def test_an_empty_index_is_an_index() -> None:
    loaded = DomainIndex.load(built().files(), EMBEDDER, domain="law")
    assert loaded.search(["anything"], 3) == [[]]
    assert loaded.apply([make_document(1)]).files() == built(1).files()


def test_a_document_given_twice_is_refused() -> None:
    with pytest.raises(ArtifactError, match="'law-1' is given twice"):
        built(1, 1)


def test_a_document_of_another_domain_is_refused() -> None:
    with pytest.raises(ArtifactError, match="of domain law, not med"):
        DomainIndex.build(make_documents([1]), EMBEDDER, domain="med")


def test_an_index_of_another_domain_is_refused() -> None:
    with pytest.raises(ArtifactError, match="of domain 'law', not 'med'"):
        DomainIndex.load(built(1).files(), EMBEDDER, domain="med")


def test_an_index_of_another_embedder_is_refused() -> None:
    with pytest.raises(ArtifactError, match="this process has hashing-128"):
        DomainIndex.load(built(1).files(), HashingEmbedder(dim=128))


def test_a_document_without_provenance_is_refused() -> None:
    for field in ("source", "licence", "text", "id"):
        with pytest.raises(InvalidEvent, match=f"has no {field}"):
            make_document(1, **{field: ""})


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_do_not_fit_together_are_refused(kind: IndexKind) -> None:
    good, other = built(*range(50), kind=kind).files(), built(*range(1, 51), kind=kind).files()
    meta = json.loads(good["meta.json"])
    lines = good["documents.jsonl"].splitlines(keepends=True)
    hostile = [
        good | {"index.faiss": other["index.faiss"]},
        good | {"index.faiss": b""},
        good | {"index.faiss": good["index.faiss"][:-9]},
        good
        | {
            "index.faiss": built(*range(50), kind="flat" if kind != "flat" else "hnsw").files()["index.faiss"]
        },
        good | {"documents.jsonl": b"".join(lines[::-1])},
        good | {"documents.jsonl": b"".join(lines[:-1])},
        good | {"documents.jsonl": good["documents.jsonl"][:-1]},
        good | {"documents.jsonl": b"{}\n" * 50},
        good | {"documents.jsonl": lines[0] * 50},
        good | {"meta.json": b"{}"},
        good | {"meta.json": b"["},
        good | {"meta.json": json.dumps(meta | {"count": 49}).encode()},
        good | {"meta.json": json.dumps(meta | {"kind": "pickle"}).encode()},
        good | {"meta.json": json.dumps(meta | {"format": 2}).encode()},
        {"index.faiss": good["index.faiss"]},
        good | {"extra": b""},
    ]
    for files in hostile:
        with pytest.raises(ArtifactError):
            DomainIndex.load(files, EMBEDDER)
