"""A foundation small enough to build in a test: random weights, one token per byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.adapter_files import Adapter, AdapterConfig, adapter_files

SPECIALS = ("<|pad|>", "<|ctx|>", "<|q|>", "<|a|>", "<|end|>")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIALS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")


def tiny_llama(vocabulary: int = 261) -> LlamaForCausalLM:
    torch.manual_seed(42)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=256,
            initializer_range=0.3,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=4,
            pad_token_id=0,
        )
    )


def tiny_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(42)
    config = GPT2Config(
        vocab_size=261, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3
    )
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def random_adapter(
    model: Any, seed: int, *, rank: int = 4, targets: tuple[str, ...] | None = None
) -> dict[str, bytes]:
    """PEFT files with random factors for every linear module, or for those named in `targets`."""
    random = torch.Generator().manual_seed(seed)
    bank = AdapterBank(model)
    shapes = bank.shapes
    bank.close()
    factors = {
        path: (
            torch.randn(rank, fan_in, generator=random) * 0.1,
            torch.randn(fan_out, rank, generator=random) * 0.1,
        )
        for path, (fan_in, fan_out) in shapes.items()
        if targets is None or path.split(".")[-1] in targets
    }
    names = tuple(sorted({path.split(".")[-1] for path in factors}))
    return adapter_files(Adapter(AdapterConfig(rank=rank, alpha=8, target_modules=names), factors))


def write_tiny_foundation(folder: Path) -> None:
    tiny_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
