from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.foundation_training.corpus import bank
from twinloop.foundation_training.train import Recipe, rate_factor, train

TINY = Path(__file__).parents[3] / "foundation" / "tiny"


def test_the_rate_rises_holds_and_falls_to_zero() -> None:
    recipe = Recipe(steps=1000, rate_warm_up_steps=50, decay_share=0.4)
    assert rate_factor(recipe, 0) == pytest.approx(0.02)
    assert rate_factor(recipe, 49) == rate_factor(recipe, 600) == 1.0
    assert rate_factor(recipe, 800) == pytest.approx(0.5)
    assert rate_factor(recipe, 999) == pytest.approx(0.0025)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_weights_bit_for_bit() -> None:
    import torch
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    recipe = Recipe(steps=3, max_tokens=512, evaluation_size=2)
    first, second = (
        train(recipe, tokenizer, bank()[:4], report=lambda row: None).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
