"""What every embedder promises."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from twinloop.errors import ConfigError
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.retrieval.hashing_embedder import HashingEmbedder

TEXTS = ["The notice period is 30 days.", "Wie lange ist die Kündigungsfrist?", "通知期間 30 日", "x" * 5000]


def test_hashing_vectors_have_unit_length() -> None:
    vectors = HashingEmbedder().embed(TEXTS)
    assert vectors.shape == (4, 1024)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)


def test_a_text_without_words_has_a_zero_vector() -> None:
    assert not HashingEmbedder().embed(["", "?!"]).any()


def test_a_vector_depends_on_its_own_text_alone() -> None:
    together = HashingEmbedder().embed(TEXTS)
    alone = np.concatenate([HashingEmbedder().embed([text]) for text in TEXTS])
    assert np.array_equal(together, alone)


def test_hashing_vectors_never_change_between_releases_of_this_program() -> None:
    digest = hashlib.sha256(HashingEmbedder().embed(TEXTS).tobytes()).hexdigest()
    assert digest == "f175b1d84b4ff2259ed8e7677c4b8af04f34424c8eaa41bc46bc9c60e6f42828"


def test_embedders_of_different_width_have_different_digests() -> None:
    assert HashingEmbedder(dim=512).digest != HashingEmbedder().digest == HashingEmbedder().digest


def test_the_word_cache_is_bounded_and_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinloop.retrieval.hashing_embedder._MAX_CACHED_WORDS", 3)
    small = HashingEmbedder()
    assert np.array_equal(small.embed(TEXTS), HashingEmbedder().embed(TEXTS))
    assert len(small._words) <= 3


def test_an_embedder_is_built_from_its_specification() -> None:
    assert build_embedder({"kind": "hashing", "dim": 256}).dim == 256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "is unknown"),
        ({"kind": "openai"}, "is unknown"),
        ({"kind": "hashing", "width": 3}, "width"),
        ({"kind": "hashing", "dim": 3}, "from 64"),
        ({"kind": "hashing", "dim": "1024"}, "from 64"),
        ({"kind": "huggingface", "model": "org/model"}, "pin `revision`"),
        ({"kind": "huggingface", "model": "org/model", "revision": "main"}, "pin `revision`"),
        ({"kind": "huggingface"}, "model"),
    ],
)
def test_an_unusable_specification_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_embedder(spec)
