"""One greedy decoding step over any Hugging Face causal model, through its own forward."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.nn import functional
from transformers import DynamicCache


class Decoder(Protocol):
    """A model with a cache for one batch; `start` forgets the batch before. Rows run under the bank's `use`."""

    def start(self, tokens: torch.Tensor, real: torch.Tensor, *, room: int) -> torch.Tensor:
        """Read left-padded prompts [rows, length] (`real` False on padding); logits [rows, vocabulary] after each."""

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token per row [rows]; logits [rows, vocabulary]. At most `room` times after a start."""


class ModelDecoder:
    """Any causal model through its own forward; adapters act through the bank's hooks."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None
        self._real = torch.empty(0)
        self._position = torch.empty(0)

    def start(self, tokens: torch.Tensor, real: torch.Tensor, *, room: int) -> torch.Tensor:
        del room  # the cache grows by itself
        self._cache = DynamicCache(config=self._model.config)
        self._real, positions = real.long(), prompt_positions(real)
        self._position = positions[:, -1:]
        return self._forward(tokens, positions)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self._real = functional.pad(self._real, (0, 1), value=1)
        self._position = self._position + 1
        return self._forward(tokens[:, None], self._position)

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self._model(
            input_ids=tokens,
            attention_mask=self._real,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def prompt_positions(real: torch.Tensor) -> torch.Tensor:
    """Position of every token of left-padded rows, counting real tokens from 0."""
    return (real.long().cumsum(-1) - 1).clamp(min=0)
