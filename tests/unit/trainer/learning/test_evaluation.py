from __future__ import annotations

import pytest

from services.trainer.learning.dataset import Example
from services.trainer.learning.evaluation import by_length, exact_match, exact_matches, forgetting_of
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import Foundation
from twinloop.model_runtime.generation import GenerationItem, Generator

PROMPTS = ["<|q|>What?<|a|>", "<|q|>And a longer one, please?<|a|>", "<|q|>x<|a|>"]


def test_exact_match_agrees_with_what_the_generator_writes(foundation: Foundation) -> None:
    bank = AdapterBank(foundation.model)
    answers = Generator(foundation, bank, max_new_tokens=6).answer_batch(
        [GenerationItem(text) for text in PROMPTS]
    )
    bank.close()
    examples = []
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = foundation.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        examples.append(Example(prompt, (*ids, *answer.tokens), len(answer.tokens)))
    wrong = Example(
        "wrong", (*examples[0].tokens[:-1], examples[0].tokens[-1] ^ 1), examples[0].answer_tokens
    )
    assert exact_matches(foundation.model, [*examples, wrong]) == [True, True, True, False]
    assert exact_match(foundation.model, [examples[0], wrong]) == 0.5


def test_nothing_measured_is_no_number(foundation: Foundation) -> None:
    assert exact_match(foundation.model, []) is None


def test_groups_stay_within_their_tokens_and_keep_every_example() -> None:
    examples = [Example(str(n), tuple(range(n)), 1) for n in (9, 2, 5, 5, 1)]
    groups = list(by_length(examples, max_tokens=10))
    assert sorted(index for group in groups for index in group) == [0, 1, 2, 3, 4]
    for group in groups:
        assert len(group) * max(len(examples[index].tokens) for index in group) <= 10


def test_forgetting_is_the_best_ever_minus_the_last() -> None:
    summary = forgetting_of([[0.8], [1.0, 0.9], [0.5, 0.9, 1.0]])
    assert summary.accuracy == pytest.approx(0.8)
    assert summary.learning_accuracy == pytest.approx(0.9)
    assert summary.forgetting == pytest.approx((0.5 + 0.0) / 2)
    assert summary.backward_transfer == pytest.approx((-0.3 + 0.0) / 2)


def test_one_update_has_nothing_to_forget() -> None:
    assert forgetting_of([[0.7]]).forgetting == 0.0


@pytest.mark.parametrize("matrix", [[], [[1.0, 2.0]], [[1.0], [1.0]]])
def test_what_is_no_triangle_is_refused(matrix: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="matrix"):
        forgetting_of(matrix)
