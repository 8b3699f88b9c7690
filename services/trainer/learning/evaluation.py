"""Exact match of whole answers, and what a matrix of them says about learning and forgetting."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.learning.dataset import Example

_FORWARD_TOKENS = 128
"""What a forward and backward costs however short its rows are, in tokens of the shipped foundation."""


@dataclass(frozen=True)
class Padded:
    """Left-padded examples: every answer ends in the last column, so logits are needed on a few columns only."""

    tokens: torch.Tensor
    real: torch.Tensor
    labels: torch.Tensor
    """[rows, answer columns]; -100 where a row's answer is shorter."""

    @property
    def positions(self) -> torch.Tensor:
        return (self.real.cumsum(-1) - 1).clamp(min=0)


def padded(examples: Sequence[Example], device: torch.device) -> Padded:
    """Lay examples of different lengths into one batch."""
    length = max(len(example.tokens) for example in examples)
    columns = max(example.answer_tokens for example in examples)
    tokens = [[0] * (length - len(example.tokens)) + list(example.tokens) for example in examples]
    real = [[0] * (length - len(example.tokens)) + [1] * len(example.tokens) for example in examples]
    labels = [
        [-100] * (columns - example.answer_tokens) + list(example.tokens[-example.answer_tokens :])
        for example in examples
    ]
    return Padded(*(torch.tensor(values, device=device) for values in (tokens, real, labels)))


def answer_logits(model: Any, batch: Padded) -> torch.Tensor:
    """Logits [rows, answer columns, vocabulary] that predict `batch.labels`."""
    logits: torch.Tensor = model(
        input_ids=batch.tokens,
        attention_mask=batch.real,
        position_ids=batch.positions,
        use_cache=False,
        logits_to_keep=batch.labels.shape[1] + 1,
    ).logits
    return logits[:, :-1]


def by_length(examples: Sequence[Example], *, max_tokens: int) -> Iterator[list[int]]:
    """Indices in groups of similar length whose padded size stays within `max_tokens`.

    The cheapest such grouping: padding costs what it adds, and every group what a forward costs however short it is.
    """
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].tokens))
    cheapest, start_of = [0], [0]
    for end in range(1, len(order) + 1):
        longest = len(examples[order[end - 1]].tokens)
        first = min(end - 1, max(0, end - max_tokens // longest))
        cost, start = min(
            (cheapest[start] + (end - start) * longest + _FORWARD_TOKENS, start)
            for start in range(first, end)
        )
        cheapest.append(cost)
        start_of.append(start)
    groups, end = [], len(order)
    while end:
        groups.append(order[start_of[end] : end])
        end = start_of[end]
    yield from reversed(groups)


def exact_matches(model: Any, examples: Sequence[Example], *, max_tokens: int = 4096) -> list[bool]:
    """Per example, whether greedy decoding would write exactly its answer, citation and end included.

    Teacher forced: if every next token is right given the right ones before it, greedy decoding gives them too.
    """
    matches = [False] * len(examples)
    device = next(model.parameters()).device
    with torch.inference_mode():
        for group in by_length(examples, max_tokens=max_tokens):
            batch = padded([examples[index] for index in group], device)
            right = (answer_logits(model, batch).argmax(-1) == batch.labels) | (batch.labels == -100)
            for index, match in zip(group, right.all(-1).tolist(), strict=True):
                matches[index] = match
    return matches


def exact_match(model: Any, examples: Sequence[Example]) -> float | None:
    """Share of exact matches; None without examples."""
    return statistics.fmean(exact_matches(model, examples)) if examples else None


@dataclass(frozen=True)
class Forgetting:
    """Summary of R, where R[i][j] is the exact match on update j's rows after update i (j <= i)."""

    accuracy: float
    """Mean of the last row: what is known in the end."""
    learning_accuracy: float
    """Mean of the diagonal: what was known right after each update."""
    forgetting: float
    """Mean over earlier updates of the best ever minus the last (Chaudhry et al., arXiv 1801.10112)."""
    backward_transfer: float
    """Mean over earlier updates of the last minus the diagonal (Lopez-Paz and Ranzato, arXiv 1706.08840)."""


def forgetting_of(matrix: Sequence[Sequence[float]]) -> Forgetting:
    """Summarise a lower-triangular matrix; raises ValueError when it is empty or not one."""
    if not matrix or any(len(row) != number + 1 for number, row in enumerate(matrix)):
        raise ValueError("row i of a forgetting matrix needs i + 1 entries, and there must be one")
    last = matrix[-1]
    earlier = range(len(matrix) - 1)
    diagonal = [row[-1] for row in matrix]
    lost = [max(row[j] for row in matrix[j:-1]) - last[j] for j in earlier]
    moved = [last[j] - diagonal[j] for j in earlier]
    return Forgetting(
        accuracy=statistics.fmean(last),
        learning_accuracy=statistics.fmean(diagonal),
        forgetting=statistics.fmean(lost) if lost else 0.0,
        backward_transfer=statistics.fmean(moved) if moved else 0.0,
    )
