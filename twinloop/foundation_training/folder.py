"""Write a trained foundation as a folder that transformers loads offline, with its log and its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinloop.foundation_training.evaluate import LONGEST_ANSWER, Model
from twinloop.foundation_training.tokenizer import wrap_for_transformers
from twinloop.foundation_training.train import Recipe, Row

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MANIFEST = "MANIFEST.json"
TRAINING_LOG = "TRAINING.md"
_LOGGED = ("rag1", "rag1_varied_passages", "rag2", "closed_book", "closed_book_held_out_phrasings")
_LOGGED_ABSTENTIONS = ("abstains_wrong_passage", "abstains_unknown_entity", "abstains_foreign_passage")
_VERSIONED = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def write_weights(folder: Path, model: Model, tokenizer: Tokenizer) -> None:
    """Save weights as float16 with a config that says float32, so that loaders compute in float32."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.update(
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        max_new_tokens=LONGEST_ANSWER,
        do_sample=False,
    )
    model.to(torch.float16).save_pretrained(folder)
    model.to(torch.float32)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    _write_json(folder / "config.json", config)
    wrap_for_transformers(tokenizer).save_pretrained(folder)


def write_training_log(folder: Path, recipe: Recipe, rows: Sequence[Row]) -> None:
    """Steps against exact match, as Markdown."""
    columns = [*_LOGGED, *_LOGGED_ABSTENTIONS]
    lines = [
        "# Training log",
        "",
        f"Seed {recipe.seed}, {recipe.steps} steps, one thread. CPU seconds exclude the evaluations; every",
        f"score is an exact match of the whole answer ({recipe.evaluation_size} drawn samples or the bank).",
        "",
        "| step | CPU s | tokens | loss | " + " | ".join(columns) + " |",
        "|" + "---|" * (len(columns) + 4),
    ]
    for row in rows:
        scores = " | ".join(f"{row.scores[column]:.3f}" for column in columns)
        lines.append(f"| {row.step} | {row.cpu_seconds:.0f} | {row.tokens} | {row.loss:.3f} | {scores} |")
    (folder / TRAINING_LOG).write_text("\n".join(lines) + "\n")


def write_manifest(folder: Path, recipe: Recipe, *, scores: Mapping[str, float], last: Row) -> None:
    """List every file's SHA-256, the seed, the recipe, the versions and the scores; written last."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    _write_json(
        folder / MANIFEST,
        {
            "name": "twinloop-tiny",
            "corpus_seed": recipe.seed,
            "recipe": vars(recipe),
            "training": {"cpu_seconds": last.cpu_seconds, "tokens": last.tokens, "threads": 1},
            "versions": {package: version(package) for package in _VERSIONED},
            "scores": dict(scores),
            "files": {name: {"sha256": _sha256(folder / name)} for name in names},
        },
    )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
