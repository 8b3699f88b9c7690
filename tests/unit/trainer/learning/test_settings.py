from __future__ import annotations

import pytest

from services.trainer.learning.settings import LearningSettings, settings_from
from twinloop.errors import ConfigError


def test_no_values_give_the_defaults() -> None:
    assert settings_from({}) == LearningSettings()


def test_given_values_win() -> None:
    settings = settings_from({"max_steps": 5, "max_seconds": 3, "target_modules": ["q_proj"], "alpha": 8})
    assert (settings.max_steps, settings.max_seconds, settings.target_modules, settings.alpha) == (
        5,
        3.0,
        ("q_proj",),
        8.0,
    )


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 5},
        {"max_steps": "5"},
        {"max_steps": 0},
        {"max_steps": True},
        {"replay_share": 2.0},
        {"learning_rate": 0.0},
        {"ewc_lambda": -1.0},
        {"precision": "float8"},
        {"target_modules": "all-linear"},
    ],
)
def test_values_that_cannot_be_used_are_named(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        settings_from(values)
