from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from twinloop.foundation_training.corpus import CORPUS_SEED

TINY = Path(__file__).parents[3] / "foundation" / "tiny"


def test_every_shipped_file_is_what_the_manifest_says() -> None:
    manifest = json.loads((TINY / "MANIFEST.json").read_text())
    present = {path.name for path in TINY.iterdir()} - {"MANIFEST.json"}
    assert present == set(manifest["files"])
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((TINY / name).read_bytes()).hexdigest() == entry["sha256"], name


def test_the_shipped_weights_know_the_default_bank() -> None:
    manifest = json.loads((TINY / "MANIFEST.json").read_text())
    assert manifest["corpus_seed"] == CORPUS_SEED
    assert manifest["scores"]["rag1"] >= 0.95
    assert manifest["scores"]["closed_book"] >= 0.95
    assert manifest["scores"]["closed_book_held_out_phrasings"] >= 0.95


@pytest.mark.slow
def test_the_shipped_folder_measures_what_its_manifest_claims() -> None:
    from twinloop.foundation_training.evaluate import measure_folder

    claimed = json.loads((TINY / "MANIFEST.json").read_text())["scores"]
    measured = measure_folder(TINY, seed=CORPUS_SEED, n=24)
    for name in ("closed_book", "closed_book_held_out_phrasings"):
        assert measured[name] == pytest.approx(claimed[name], abs=0.01)
    assert measured["rag1"] >= claimed["rag1"] - 0.1  # 24 samples: two more misses than claimed
    assert measured["ends_on_foreign_text"] == 1.0
