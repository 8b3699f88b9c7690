"""Byte-level BPE with 1024 tokens; digits are cut into pairs so that a document id is two tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from twinloop.foundation_training import foreign_text
from twinloop.foundation_training.corpus import ANSWER, CONTEXT, END, PAD, QUESTION, SPECIAL_TOKENS, Fact
from twinloop.foundation_training.samples import MAIN_MIX, stream

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 1024
TRAINING_TEXTS = 8000

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}" + CONTEXT + "{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}" + QUESTION + "{{ message['content'] }}"
    "{% else %}" + ANSWER + "{{ message['content'] }}" + END + "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ANSWER + "{% endif %}"
)
"""The system message is the passage, the user message the question."""


def train_tokenizer(random: Random, bank: Sequence[Fact]) -> Tokenizer:
    """Learn the merges from the training mix plus noise; the same random state gives the same file."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\d{1,2}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(random, bank), trainer)
    return tokenizer


def wrap_for_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The same tokenizer as `AutoTokenizer` loads it: pads on the left, ends on `<|end|>`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[CONTEXT, QUESTION, ANSWER],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )


def _texts(random: Random, bank: Sequence[Fact]) -> Iterator[str]:
    for sample in islice(stream(random, bank, MAIN_MIX), TRAINING_TEXTS):
        yield from (sample.passage or "", sample.question, sample.answer)
    for _ in range(TRAINING_TEXTS // 8):
        yield foreign_text.paragraph(random, 3)
