"""Greedy answers for a batch whose rows may run under different adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import Foundation


@dataclass(frozen=True)
class GenerationItem:
    """One prompt and the digest of the adapter that answers it; None is the bare foundation."""

    prompt: str
    adapter: str | None = None


@dataclass(frozen=True)
class Generation:
    """What one row produced."""

    text: str
    """Decoded answer without special tokens."""
    tokens: tuple[int, ...]
    """Generated token ids, without the stop token."""
    finished: bool
    """The model ended the answer itself; False: it was cut at the limit, or the prompt was refused."""
    prompt_tokens: int
    refused: str | None = None
    """Why nothing was generated (`prompt_too_long`, `prompt_empty`), else None."""


class Generator:
    """Greedy decoding with a KV cache; the same batch in the same order gives the same tokens.

    One instance serves one thread at a time; adapters may be loaded meanwhile.
    """

    def __init__(
        self,
        foundation: Foundation,
        bank: AdapterBank,
        *,
        max_new_tokens: int = 32,
        max_prompt_tokens: int = 1024,
    ) -> None:
        self._model, self._tokenizer = foundation.model, foundation.tokenizer
        self._device = foundation.device
        self._bank = bank
        self._stop = torch.tensor(sorted(foundation.stop_ids), device=self._device)
        self._max_new = max_new_tokens
        self._max_prompt = min(max_prompt_tokens, foundation.context_tokens - max_new_tokens)

    def answer_batch(self, items: Sequence[GenerationItem]) -> list[Generation]:
        """One generation per item, in order; raises NotReady when an adapter is not resident."""
        raise NotImplementedError

    def next_token_logits(self, items: Sequence[GenerationItem]) -> torch.Tensor:
        """Logits [items, vocabulary] right after each prompt: what a bit-for-bit comparison of two releases looks at."""
        raise NotImplementedError

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, as the length limit counts them."""
        return len(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def _unused(self) -> Any:
        return DynamicCache
