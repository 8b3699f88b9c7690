"""The remembering embedder gives the same bits as the one it wraps and asks it once a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twinloop.retrieval.embedder import Vectors
from twinloop.retrieval.hashing_embedder import HashingEmbedder
from twinloop.retrieval.remembering_embedder import RememberingEmbedder


class _Counting(HashingEmbedder):
    def __init__(self) -> None:
        super().__init__(dim=64)
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        return super().embed(texts)


def test_the_vectors_are_those_of_the_inner_embedder_bit_for_bit() -> None:
    inner = HashingEmbedder(dim=64)
    remembering = RememberingEmbedder(inner, max_texts=10)
    texts = ["When was it filed?", "", "Who signed it?", "When was it filed?"]
    for _ in range(2):
        assert np.array_equal(remembering.embed(texts), inner.embed(texts))
    assert (remembering.name, remembering.digest, remembering.dim) == (inner.name, inner.digest, inner.dim)


def test_a_text_asked_again_is_not_computed_again() -> None:
    inner = _Counting()
    remembering = RememberingEmbedder(inner, max_texts=10)
    remembering.embed(["a b", "c d", "a b"])
    remembering.embed(["a b"])
    assert inner.asked == ["a b", "c d"]


def test_only_so_many_texts_are_kept() -> None:
    inner = _Counting()
    remembering = RememberingEmbedder(inner, max_texts=1)
    remembering.embed(["a b", "c d", "a b"])
    assert inner.asked == ["a b", "c d", "a b"]


def test_what_a_caller_does_to_its_vectors_changes_no_later_answer() -> None:
    remembering = RememberingEmbedder(HashingEmbedder(dim=64), max_texts=10)
    first = remembering.embed(["When was it filed?"])
    kept = first.copy()
    first[:] = 7.0
    assert np.array_equal(remembering.embed(["When was it filed?"]), kept)
