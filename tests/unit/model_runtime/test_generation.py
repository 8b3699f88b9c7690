from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from twinloop.errors import ConfigError, NotReady
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.decoding import ModelDecoder
from twinloop.model_runtime.foundation import Foundation
from twinloop.model_runtime.generation import GenerationItem, Generator, decoder_for
from twinloop.model_runtime.llama_decoding import LlamaDecoder, is_small_llama

PROMPTS = [
    "<|q|>What is it?<|a|>",
    "<|q|>And this longer question, what about it?<|a|>",
    "<|q|>Who?<|a|>",
    "x",
]


@pytest.fixture
def bank(foundation: Foundation, make_adapter: Any) -> Iterator[AdapterBank]:
    bank = AdapterBank(foundation.model)
    for seed, name in enumerate(("a", "b"), start=1):
        bank.load(name, make_adapter(foundation.model, seed, rank=2 * seed))
    yield bank
    bank.close()


@pytest.fixture
def generator(foundation: Foundation, bank: AdapterBank) -> Generator:
    return Generator(foundation, bank, max_new_tokens=12)


def _items(*adapters: str | None) -> list[GenerationItem]:
    return [GenerationItem(prompt, adapter) for prompt, adapter in zip(PROMPTS, adapters, strict=False)]


def _hugging_face_tokens(foundation: Foundation, prompt: str) -> list[int]:
    ids = torch.tensor([foundation.tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    out = foundation.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    return [token for token in out[0, ids.shape[1] :].tolist() if token not in (0, 4)]


def test_greedy_tokens_equal_those_of_hugging_face_generate(
    foundation: Foundation, generator: Generator
) -> None:
    for item, generation in zip(
        _items(*[None] * 4), generator.answer_batch(_items(*[None] * 4)), strict=True
    ):
        assert list(generation.tokens) == _hugging_face_tokens(foundation, item.prompt)


def test_the_fast_path_and_the_models_own_forward_choose_the_same_tokens(
    foundation: Foundation, bank: AdapterBank, generator: Generator
) -> None:
    assert is_small_llama(foundation.model)
    slow = Generator(foundation, bank, max_new_tokens=12, decoder=ModelDecoder(foundation.model))
    for adapters in (["a"], [None, None], ["a", "a", "a"], ["b", None, "a", "b"]):
        assert generator.answer_batch(_items(*adapters)) == slow.answer_batch(_items(*adapters))
    fast_logits = generator.next_token_logits(_items("b", None, "a", "b"))
    assert torch.allclose(fast_logits, slow.next_token_logits(_items("b", None, "a", "b")), atol=1e-4)


def test_merged_weights_answer_as_unmerged_ones_and_leave_mixed_batches_alone(
    foundation: Foundation, bank: AdapterBank, generator: Generator
) -> None:
    merging = Generator(
        foundation, bank, max_new_tokens=12, decoder=decoder_for(foundation, bank, merge=True)
    )
    for adapters in (["a"], ["b", "b", "b"], ["b", None, "a", "b"], [None, None]):
        items = _items(*adapters)
        assert merging.answer_batch(items) == generator.answer_batch(items)
        ours, theirs = merging.next_token_logits(items), generator.next_token_logits(items)
        assert torch.allclose(ours, theirs, atol=1e-4)
        assert torch.equal(ours, theirs) == (len(set(adapters)) > 1 or adapters[0] is None)


def test_weights_are_not_merged_for_a_model_of_which_no_copy_is_kept(
    gpt2: Any, foundation: Foundation
) -> None:
    other = replace(foundation, model=gpt2)
    with pytest.raises(ConfigError, match="leave merging off"):
        decoder_for(other, AdapterBank(gpt2), merge=True)


def test_a_mixed_batch_answers_like_one_row_batches(generator: Generator) -> None:
    mixed = generator.answer_batch(_items("a", None, "b", "a"))
    for item, generation in zip(_items("a", None, "b", "a"), mixed, strict=True):
        assert generator.answer_batch([item]) == [generation]


def test_the_same_batch_gives_the_same_logits_bit_for_bit_after_other_batches(
    foundation: Foundation, generator: Generator, bank: AdapterBank, make_adapter: Any
) -> None:
    items = _items("a", "b", None, "a")
    before = generator.next_token_logits(items)
    bank.load("c", make_adapter(foundation.model, 9))
    generator.answer_batch(_items("c", "c"))
    bank.evict("a")
    bank.load("a", make_adapter(foundation.model, 1, rank=2))
    assert torch.equal(generator.next_token_logits(items), before)


def test_a_cut_answer_says_that_it_is_not_finished(foundation: Foundation, bank: AdapterBank) -> None:
    short = Generator(foundation, bank, max_new_tokens=2)
    for generation in short.answer_batch(_items("a", None)):
        assert generation.finished is (len(generation.tokens) < 2)


def test_an_answer_that_ends_is_finished_and_keeps_no_stop_token(
    foundation: Foundation, bank: AdapterBank
) -> None:
    decoder = _ScriptedDecoder([[7, 7], [4, 8], [9, 4]])
    first, second = Generator(foundation, bank, max_new_tokens=8, decoder=decoder).answer_batch(
        _items(None, None)
    )
    assert (first.tokens, first.finished) == ((7,), True)
    assert (second.tokens, second.finished) == ((7, 8), True)


def test_a_row_that_ended_does_not_grow_while_others_go_on(foundation: Foundation, bank: AdapterBank) -> None:
    decoder = _ScriptedDecoder([[4, 7], [9, 7], [9, 7], [9, 7]])
    first, second = Generator(foundation, bank, max_new_tokens=3, decoder=decoder).answer_batch(
        _items(None, None)
    )
    assert (first.tokens, first.finished) == ((), True)
    assert (second.tokens, second.finished) == ((7, 7, 7), False)


def test_a_prompt_that_is_too_long_is_refused_and_the_others_are_answered(generator: Generator) -> None:
    items = [GenerationItem("y" * 400), GenerationItem(""), GenerationItem(PROMPTS[0])]
    too_long, empty, answered = generator.answer_batch(items)
    assert (too_long.refused, too_long.finished, too_long.tokens) == ("prompt_too_long", False, ())
    assert too_long.prompt_tokens == 400
    assert empty.refused == "prompt_empty"
    assert answered == generator.answer_batch([items[2]])[0]


def test_an_empty_batch_is_no_work(generator: Generator) -> None:
    assert generator.answer_batch([]) == []


def test_an_adapter_that_is_not_resident_stops_the_batch(generator: Generator) -> None:
    with pytest.raises(NotReady):
        generator.answer_batch(_items("a", "nobody"))


def test_a_model_that_is_no_llama_takes_the_general_path(gpt2: Any) -> None:
    assert not is_small_llama(gpt2)


def test_an_evicted_adapter_leaves_no_weights_behind_in_the_fast_path(
    foundation: Foundation, bank: AdapterBank
) -> None:
    decoder = LlamaDecoder(foundation.model, bank)
    generator = Generator(foundation, bank, max_new_tokens=2, decoder=decoder)
    generator.answer_batch(_items("a", "b"))
    assert decoder.kept_mixes() > 0
    bank.evict("a")
    bank.evict("b")
    assert decoder.kept_mixes() == 0


class _ScriptedDecoder:
    """Chooses the given tokens, one list of rows per step."""

    def __init__(self, script: list[list[int]]) -> None:
        self._script = iter(script)

    def start(self, tokens: torch.Tensor, real: torch.Tensor, *, room: int) -> torch.Tensor:
        return self.step(tokens[:, -1])

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        chosen = next(self._script)
        return torch.nn.functional.one_hot(torch.tensor(chosen), 16).float()
