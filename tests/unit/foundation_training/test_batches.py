from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from tokenizers import Tokenizer

from twinloop.foundation_training.batches import QUESTION_WEIGHT, chunk_of_batches, collate, encode
from twinloop.foundation_training.corpus import bank, closed_book_prompt, rag_prompt
from twinloop.foundation_training.samples import MAIN_MIX, Sample, stream

TINY = Path(__file__).parents[3] / "foundation" / "tiny"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / "tokenizer.json"))


def test_training_sees_the_very_tokens_a_prompt_string_gives(tokenizer: Tokenizer) -> None:
    for sample in islice(stream(Random(3), bank(), MAIN_MIX), 200):
        prompt = closed_book_prompt(sample.question)
        if sample.passage is not None:
            prompt = rag_prompt(sample.passage, sample.question)
        encoded = encode(tokenizer, [sample])[0]
        assert list(encoded.ids[: encoded.answer_start]) == tokenizer.encode(prompt).ids
        assert list(encoded.ids) == tokenizer.encode(f"{prompt}{sample.answer}<|end|>").ids


def test_the_passage_weighs_nothing_the_question_little_and_the_answer_fully(tokenizer: Tokenizer) -> None:
    short, long = encode(tokenizer, [Sample(None, "A?", "b"), Sample("C d e f", "A?", "b")])
    batch = collate(tokenizer, [short, long])
    weights = batch.weights[1]
    assert not weights[: long.question_start].any()
    assert np.allclose(weights[long.question_start : long.answer_start], QUESTION_WEIGHT)
    assert (weights[long.answer_start :] == 1).all()
    assert not batch.weights[0, len(short.ids) :].any()


def test_a_chunk_keeps_every_batch_within_the_token_limit_and_repeats_by_seed(tokenizer: Tokenizer) -> None:
    def draw() -> list[np.ndarray]:
        batches = chunk_of_batches(Random(9), tokenizer, bank=bank(), mix=MAIN_MIX, max_tokens=2048)
        return [batch.ids for batch in batches]

    first, second = draw(), draw()
    assert all(ids.size <= 2048 for ids in first)
    assert sum(len(ids) for ids in first) == 3000
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "text", ["plain", "Ä €5 — “quoted”\n\t日本 😀", "law-0042", "  spaces  ", '{"a": [1, 20, 300]}']
)
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_document_number_is_two_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("0042").tokens == ["00", "42"]
