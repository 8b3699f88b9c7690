"""Training and serving on a GPU; without one every test here is skipped and says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.learning.dataset import TrainingRow, build_examples
from services.trainer.learning.lora_update import Material, Update, train_update
from services.trainer.learning.replay_batches import Rows
from services.trainer.learning.settings import LearningSettings
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, load_foundation
from twinloop.model_runtime.generation import GenerationItem, Generator
from twinloop.model_runtime.prompt import PromptFormat, render

TINY = Path(__file__).resolve().parents[3] / "foundation" / "tiny"
FORMAT = PromptFormat()
SETTINGS = LearningSettings(
    max_steps=8, batch_size=8, evaluate_every=20, fisher_samples=4, precision="float32"
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.fixture(scope="module")
def foundation() -> Iterator[Foundation]:
    threads = torch.get_num_threads()
    yield load_foundation(FoundationSpec(source=str(TINY), device="cuda"))
    torch.set_num_threads(threads)


def _update(foundation: Foundation, **changes: Any) -> Update:
    rows = [
        TrainingRow(f"r{n}", "law", f"What is the fee of Velmo {n}?", f"{n}{n} euros [law-{n}]")
        for n in range(16)
    ]
    examples = build_examples(rows, tokenizer=foundation.tokenizer, prompt_format=FORMAT)
    return train_update(
        foundation,
        Material(new=Rows(closed=tuple(examples))),
        settings=replace(SETTINGS, **changes),
        seed=42,
        clock=lambda: 0.0,
    )


def _digest(update: Update) -> str:
    data = b"".join(update.files[name] for name in sorted(update.files)) + update.fisher
    return hashlib.sha256(data).hexdigest()


@pytest.mark.filterwarnings("ignore:.*deterministic.*:UserWarning")
@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16"}, {"tokens_per_forward": 64}])
def test_an_update_repeats_to_the_same_bytes(foundation: Foundation, changes: dict[str, Any]) -> None:
    assert _digest(_update(foundation, **changes)) == _digest(_update(foundation, **changes))


@pytest.mark.filterwarnings("ignore:.*deterministic.*:UserWarning")
def test_the_first_losses_are_those_of_the_processor(foundation: Foundation) -> None:
    there = _update(foundation).metrics["loss"]
    here = _update(load_foundation(FoundationSpec(source=str(TINY)))).metrics["loss"]
    # Only the first: rounding grows from step to step.
    assert there[0] == pytest.approx(here[0], rel=1e-4)
    assert there[1] == pytest.approx(here[1], rel=1e-2)


@pytest.mark.filterwarnings("ignore:.*deterministic.*:UserWarning")
def test_accumulated_gradients_make_the_same_first_steps(foundation: Foundation) -> None:
    whole, parts = _update(foundation), _update(foundation, tokens_per_forward=64)
    assert parts.metrics["loss"][:2] == pytest.approx(whole.metrics["loss"][:2], rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*deterministic.*:UserWarning")
def test_mixed_precision_learns_and_its_adapter_is_float32(foundation: Foundation) -> None:
    losses = _update(foundation, precision="bfloat16", max_steps=20).metrics["loss"]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.filterwarnings("ignore:.*deterministic.*:UserWarning")
def test_a_mixed_batch_answers_as_on_the_processor(foundation: Foundation) -> None:
    update = _update(foundation, max_steps=20)
    items = [
        GenerationItem(render(FORMAT, f"What is the fee of Velmo {n}?", []), ["learned", None][n % 2])
        for n in range(6)
    ]
    found = []
    for each in (foundation, load_foundation(FoundationSpec(source=str(TINY)))):
        bank = AdapterBank(each.model)
        bank.load("learned", update.files)
        generator = Generator(each, bank, max_new_tokens=16)
        found.append(
            (generator.next_token_logits(items).cpu(), [a.tokens for a in generator.answer_batch(items)])
        )
        bank.close()
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-3)
    assert found[0][1] == found[1][1]
