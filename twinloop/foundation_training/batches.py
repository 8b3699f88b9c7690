"""Samples as token ids: prompt layout, loss weights, batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinloop.foundation_training.corpus import ANSWER, CONTEXT, END, PAD, QUESTION, Fact
from twinloop.foundation_training.samples import Mix, Sample, stream

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QUESTION_WEIGHT = 0.3
SAMPLES_A_CHUNK = 3000
"""Samples sorted by length together; more means less padding and coarser switches between mixes."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and answer, and where question and answer begin."""

    ids: tuple[int, ...]
    question_start: int
    answer_start: int


@dataclass(frozen=True)
class Batch:
    """Right-padded ids and the loss weight of each id as a target, both of shape (samples, longest)."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


def encode(tokenizer: Tokenizer, samples: Sequence[Sample]) -> list[Encoded]:
    """Lay each sample out as `<|ctx|>passage<|q|>question<|a|>answer<|end|>`."""
    vocabulary = tokenizer.get_vocab()
    context, question_mark, answer_mark, end = (vocabulary[t] for t in (CONTEXT, QUESTION, ANSWER, END))
    texts = [text for s in samples for text in (s.passage or "", s.question, s.answer)]
    pieces = iter([encoding.ids for encoding in tokenizer.encode_batch(texts)])
    encoded = []
    for sample in samples:
        passage, question, answer = next(pieces), next(pieces), next(pieces)
        prefix = [] if sample.passage is None else [context, *passage]
        asked = [*prefix, question_mark, *question, answer_mark]
        encoded.append(Encoded((*asked, *answer, end), len(prefix) + 1, len(asked)))
    return encoded


def collate(tokenizer: Tokenizer, samples: Sequence[Encoded]) -> Batch:
    """Pad on the right; a causal model never looks at padding that follows, so no mask is needed."""
    shape = (len(samples), max(len(sample.ids) for sample in samples))
    ids = np.full(shape, tokenizer.token_to_id(PAD), dtype=np.int64)
    weights = np.zeros(shape, dtype=np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, sample.question_start : sample.answer_start] = QUESTION_WEIGHT
        weights[row, sample.answer_start : len(sample.ids)] = 1.0
    return Batch(ids, weights)


def chunk_of_batches(
    random: Random, tokenizer: Tokenizer, *, bank: Sequence[Fact], mix: Mix, max_tokens: int
) -> Iterator[Batch]:
    """Draw one chunk of samples, yield it in random order as batches of at most `max_tokens` with padding."""
    encoded = encode(tokenizer, list(islice(stream(random, bank, mix), SAMPLES_A_CHUNK)))
    encoded.sort(key=lambda sample: len(sample.ids))
    groups: list[list[Encoded]] = [[]]
    for sample in encoded:
        if groups[-1] and len(sample.ids) * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(sample)
    random.shuffle(groups)
    for group in groups:
        yield collate(tokenizer, group)
