from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from services.trainer.learning.dataset import TrainingRow, build_examples
from services.trainer.learning.lora_update import (
    Diverged,
    Material,
    Parent,
    Update,
    rate_factor,
    spread,
    train_update,
)
from services.trainer.learning.replay_batches import Rows
from services.trainer.learning.settings import LearningSettings
from twinloop.errors import ArtifactError
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.adapter_files import parse_adapter
from twinloop.model_runtime.foundation import Foundation, folder_digest
from twinloop.model_runtime.prompt import PromptFormat

SETTINGS = LearningSettings(
    rank=4,
    max_steps=4,
    warm_up_steps=1,
    batch_size=4,
    evaluate_every=2,
    fisher_samples=2,
    general_closed=1,
    general_grounded=1,
)
FORMAT = PromptFormat()


def _rows(foundation: Foundation, letters: str, *, passage: str | None = None) -> tuple[Any, ...]:
    rows = [
        TrainingRow(
            id=f"r{letter}",
            domain="law",
            question=f"What is {letter}?",
            answer=f"{letter} [law-1]",
            passage=passage,
        )
        for letter in letters
    ]
    return tuple(build_examples(rows, tokenizer=foundation.tokenizer, prompt_format=FORMAT))


def _material(foundation: Foundation) -> Material:
    return Material(
        new=Rows(closed=_rows(foundation, "abcd"), grounded=_rows(foundation, "ab", passage="It is a.")),
        replay=Rows(closed=_rows(foundation, "ef")),
        general=Rows(closed=_rows(foundation, "gh"), grounded=_rows(foundation, "i", passage="It is i.")),
        probe=Rows(grounded=_rows(foundation, "j", passage="It is j.")),
    )


def _update(foundation: Foundation, material: Material | None = None, **options: Any) -> Update:
    settings = options.pop("settings", SETTINGS)
    clock: Callable[[], float] = options.pop("clock", lambda: 0.0)
    seed = options.pop("seed", 42)
    return train_update(
        foundation, material or _material(foundation), settings=settings, seed=seed, clock=clock, **options
    )


def test_the_same_inputs_give_the_same_bytes(foundation: Foundation) -> None:
    first = _update(foundation)
    second = _update(foundation)
    assert first.files == second.files
    assert first.fisher == second.fisher
    assert first.metrics == second.metrics
    assert _update(foundation, seed=43).files != first.files


def test_an_update_on_a_parent_repeats_to_the_same_bytes_and_uses_its_fisher(foundation: Foundation) -> None:
    base = _update(foundation)
    parent = Parent(base.files, base.fisher)
    pulled = _update(foundation, parent=parent, settings=replace(SETTINGS, ewc_lambda=50.0))
    assert (
        pulled.files == _update(foundation, parent=parent, settings=replace(SETTINGS, ewc_lambda=50.0)).files
    )
    free = _update(foundation, parent=parent, settings=replace(SETTINGS, ewc_lambda=0.0))
    assert _distance(pulled, base) < _distance(free, base)


def test_the_foundation_is_left_as_it_was(foundation: Foundation) -> None:
    before = {name: value.clone() for name, value in foundation.model.state_dict().items()}
    random_state = torch.get_rng_state()
    _update(foundation)
    after = foundation.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_after_a_hundred_updates_the_foundations_digest_is_what_it_was(
    foundation: Foundation, foundation_folder: Path
) -> None:
    before, weights = folder_digest(foundation_folder), _weights_digest(foundation)
    settings = replace(SETTINGS, max_steps=1, evaluation_rows=1)
    parent, adapters = None, set()
    for number in range(100):
        update = _update(foundation, settings=settings, seed=number, parent=parent)
        parent = Parent(update.files, update.fisher)
        adapters.add(update.files["adapter_model.safetensors"])
    assert len(adapters) == 100, "every update must have learned something"
    assert _weights_digest(foundation) == weights
    assert folder_digest(foundation_folder) == before


def _weights_digest(foundation: Foundation) -> str:
    return hashlib.sha256(
        safetensors.torch.save({n: v.clone() for n, v in foundation.model.state_dict().items()})
    ).hexdigest()


def test_every_earlier_update_is_measured_before_and_after(foundation: Foundation) -> None:
    earlier = {"2" * 64: _rows(foundation, "ab"), "1" * 64: _rows(foundation, "cdefg")}
    settings = replace(SETTINGS, matrix_rows=3)
    material = replace(_material(foundation), earlier=earlier)
    first, second = _update(foundation, material, settings=settings).metrics["forgetting"]
    assert (first["update"], first["rows"]) == ("1" * 64, 3)
    assert (second["update"], second["rows"]) == ("2" * 64, 2)
    assert all(0 <= row[when] <= 1 for row in (first, second) for when in ("before", "after"))


def test_b_learns_at_its_own_rate(foundation: Foundation) -> None:
    same, faster = (
        parse_adapter(_update(foundation, settings=replace(SETTINGS, rate_ratio=ratio, max_steps=1)).files)
        for ratio in (1.0, 4.0)
    )
    for path, (a, b) in same.factors.items():
        torch.testing.assert_close(faster.factors[path][0], a)
        torch.testing.assert_close(faster.factors[path][1], 4 * b)


def test_the_adapter_serves_in_the_bank(foundation: Foundation) -> None:
    bank = AdapterBank(foundation.model)
    bank.load("new", _update(foundation).files)
    assert bank.resident() == {"new"}
    bank.close()


def test_training_lowers_the_loss(foundation: Foundation) -> None:
    losses = _update(foundation, settings=replace(SETTINGS, max_steps=15, evaluate_every=99)).metrics["loss"]
    assert losses[-1] < losses[0] * 0.9


def test_every_number_of_the_report_is_there(foundation: Foundation) -> None:
    metrics = _update(foundation).metrics
    for name in (
        "gate_exact_match",
        "update_exact_match",
        "replay_exact_match",
        "probe_before",
        "probe_after",
    ):
        assert 0 <= metrics[name] <= 1
    assert metrics["steps"] == SETTINGS.max_steps
    assert metrics["stopped"] == "steps"
    assert metrics["gate_passed"] is False


def test_training_stops_at_the_gate(foundation: Foundation) -> None:
    metrics = _update(
        foundation, settings=replace(SETTINGS, target_exact_match=0.0, max_old_loss=1.0)
    ).metrics
    assert (metrics["steps"], metrics["stopped"], metrics["gate_passed"]) == (2, "gate", True)


def test_training_stops_when_its_time_is_over(foundation: Foundation) -> None:
    ticks = iter(range(100))
    metrics = _update(
        foundation, clock=lambda: float(next(ticks)), settings=replace(SETTINGS, max_seconds=1.5)
    ).metrics
    assert (metrics["steps"], metrics["stopped"]) == (2, "seconds")


def test_gradients_accumulate_to_the_same_step(foundation: Foundation) -> None:
    whole = parse_adapter(_update(foundation).files)
    parts = parse_adapter(_update(foundation, settings=replace(SETTINGS, tokens_per_forward=40)).files)
    for path, (a, b) in whole.factors.items():
        assert torch.allclose(a, parts.factors[path][0], atol=1e-4)
        assert torch.allclose(b, parts.factors[path][1], atol=1e-4)


def test_a_loss_that_is_no_number_stops_the_update(foundation: Foundation) -> None:
    with pytest.raises(Diverged, match="step"):
        _update(foundation, settings=replace(SETTINGS, learning_rate=1e30, max_steps=10))


def test_a_parent_of_another_foundation_is_refused(foundation: Foundation) -> None:
    fewer = _update(foundation, settings=replace(SETTINGS, target_modules=("q_proj",)))
    fisher = _update(foundation).fisher
    with pytest.raises(ArtifactError, match="fisher"):
        _update(foundation, parent=Parent(fewer.files, fisher))
    assert not any("lora" in name for name, _ in foundation.model.named_modules())


def test_the_rate_warms_up_and_falls_to_its_share() -> None:
    settings = LearningSettings(warm_up_steps=10, decay_steps=60, final_rate_share=0.1)
    assert rate_factor(settings, 0) == pytest.approx(0.1)
    assert rate_factor(settings, 9) == pytest.approx(1.0)
    assert rate_factor(settings, 60) == pytest.approx(0.1)
    assert rate_factor(settings, 500) == pytest.approx(0.1)


def test_spread_takes_evenly() -> None:
    assert spread(list(range(10)), 3) == [0, 3, 6]  # type: ignore[arg-type, comparison-overlap]
    assert spread([1], 3) == [1]  # type: ignore[list-item, comparison-overlap]


def _distance(one: Update, other: Update) -> float:
    left, right = parse_adapter(one.files).factors, parse_adapter(other.files).factors
    return sum(float((left[path][n] - right[path][n]).square().sum()) for path in left for n in (0, 1))
