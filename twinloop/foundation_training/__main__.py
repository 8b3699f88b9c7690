"""`python -m twinloop.foundation_training --out foundation/tiny --seed 42`: train, write, measure."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from twinloop.foundation_training.corpus import bank
from twinloop.foundation_training.evaluate import measure_folder
from twinloop.foundation_training.folder import write_manifest, write_training_log, write_weights
from twinloop.foundation_training.tokenizer import train_tokenizer
from twinloop.foundation_training.train import Recipe, Row, train


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny foundation on one CPU thread.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files in it are replaced")
    parser.add_argument("--seed", type=int, default=42, help="decides corpus, bank, tokenizer and weights")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimiser steps")
    arguments = parser.parse_args()
    build(arguments.out, Recipe(seed=arguments.seed, steps=arguments.steps))


def build(folder: Path, recipe: Recipe) -> None:
    """Train by the recipe and leave a complete foundation folder; the manifest is written last."""
    import torch

    torch.set_num_threads(1)  # two threads are slower here and give other bytes
    torch.use_deterministic_algorithms(True)
    facts = bank(recipe.seed)
    tokenizer = train_tokenizer(Random(f"tokenizer/{recipe.seed}"), facts)
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row)
        print(json.dumps(vars(row)), flush=True)

    model = train(recipe, tokenizer, facts, report=report)
    write_weights(folder, model, tokenizer)
    write_training_log(folder, recipe, rows)
    write_manifest(folder, recipe, scores=measure_folder(folder, seed=recipe.seed), last=rows[-1])


if __name__ == "__main__":
    main()
