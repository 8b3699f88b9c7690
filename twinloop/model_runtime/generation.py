"""Greedy answers for a batch whose rows may run under different adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from twinloop.errors import ConfigError
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.decoding import Decoder, ModelDecoder
from twinloop.model_runtime.foundation import Foundation
from twinloop.model_runtime.llama_decoding import LlamaDecoder, is_small_llama


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


def decoder_for(foundation: Foundation, bank: AdapterBank, *, merge: bool = False) -> Decoder:
    """The fast path where the model is a small plain Llama, else Hugging Face's own forward.

    `merge` adds an adapter into a copy of the weights for batches that it has to itself; raises ConfigError for a model
    that is no small plain Llama, of which no copy is kept.
    """
    if is_small_llama(foundation.model):
        return LlamaDecoder(foundation.model, bank, merge=merge)
    if merge:
        raise ConfigError(
            f"foundation {foundation.spec.source}: weights are merged only for a small Llama in float32 on a "
            "CPU; leave merging off"
        )
    return ModelDecoder(foundation.model)


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
        decoder: Decoder | None = None,
    ) -> None:
        self._tokenizer, self._device, self._bank = foundation.tokenizer, foundation.device, bank
        self._stop = foundation.stop_ids
        self._pad = next(iter(sorted(self._stop)), 0)
        self._max_new = max_new_tokens
        self._max_prompt = min(max_prompt_tokens, foundation.context_tokens - max_new_tokens)
        self.decoder = decoder or decoder_for(foundation, bank)

    def answer_batch(self, items: Sequence[GenerationItem]) -> list[Generation]:
        """One generation per item, in order; raises NotReady when an adapter is not resident."""
        prompts = [self.encoded(item.prompt) for item in items]
        refusals = [self._refusal(prompt) for prompt in prompts]
        # Rows of one adapter stand together, so that reading the prompts needs one product per adapter.
        kept = sorted(
            (row for row, refusal in enumerate(refusals) if refusal is None),
            key=lambda row: items[row].adapter or "",
        )
        produced = dict(
            zip(kept, self._greedy([prompts[n] for n in kept], [items[n] for n in kept]), strict=True)
        )
        return [
            self._generation(
                produced.get(row, ([], False)), prompt_tokens=len(prompts[row]), refused=refusals[row]
            )
            for row in range(len(items))
        ]

    def next_token_logits(self, items: Sequence[GenerationItem]) -> torch.Tensor:
        """Logits [items, vocabulary] right after each prompt, for bit-for-bit comparisons of two releases."""
        prompts = [self.encoded(item.prompt) for item in items]
        with torch.inference_mode(), self._bank.use([item.adapter for item in items]):
            return self.decoder.start(*self.padded(prompts), room=0).clone()

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, as the length limit counts them."""
        return len(self.encoded(prompt))

    def _greedy(
        self, prompts: list[list[int]], items: Sequence[GenerationItem]
    ) -> list[tuple[list[int], bool]]:
        if not prompts:
            return []
        answers: list[list[int]] = [[] for _ in prompts]
        running = set(range(len(prompts)))
        with torch.inference_mode(), self._bank.use([item.adapter for item in items]):
            logits = self.decoder.start(*self.padded(prompts), room=self._max_new)
            for _ in range(self._max_new):
                chosen = logits.argmax(-1)
                for row, token in enumerate(chosen.tolist()):
                    if row in running and token in self._stop:
                        running.discard(row)
                    elif row in running:
                        answers[row].append(token)
                if not running or len(answers[min(running)]) == self._max_new:
                    break
                logits = self.decoder.step(chosen)
        return [(answer, row not in running) for row, answer in enumerate(answers)]

    def padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded token ids [rows, length] and where they are real, as a decoder starts from."""
        length = max(map(len, prompts))
        tokens = [[self._pad] * (length - len(prompt)) + list(prompt) for prompt in prompts]
        real = [[False] * (length - len(prompt)) + [True] * len(prompt) for prompt in prompts]
        return torch.tensor(tokens, device=self._device), torch.tensor(real, device=self._device)

    def encoded(self, prompt: str) -> list[int]:
        """Token ids of a prompt, nothing added."""
        ids: list[int] = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return ids

    def _refusal(self, prompt: list[int]) -> str | None:
        if not prompt:
            return "prompt_empty"
        return "prompt_too_long" if len(prompt) > self._max_prompt else None

    def _generation(
        self, produced: tuple[list[int], bool], *, prompt_tokens: int, refused: str | None
    ) -> Generation:
        tokens, finished = produced
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Generation(text, tuple(tokens), finished, prompt_tokens, refused)
