from __future__ import annotations

import pytest

from twinloop.foundation_training.train import Recipe, rate_factor


def test_the_rate_rises_holds_and_falls_to_zero() -> None:
    recipe = Recipe(steps=1000, rate_warm_up_steps=50, decay_share=0.4)
    assert rate_factor(recipe, 0) == pytest.approx(0.02)
    assert rate_factor(recipe, 49) == rate_factor(recipe, 600) == 1.0
    assert rate_factor(recipe, 800) == pytest.approx(0.5)
    assert rate_factor(recipe, 999) == pytest.approx(0.0025)
