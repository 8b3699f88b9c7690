"""Train the tiny foundation on one CPU thread: a small Llama, Muon for its matrices, AdamW for the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from twinloop.foundation_training.batches import Batch, chunk_of_batches
from twinloop.foundation_training.corpus import END, PAD, Fact
from twinloop.foundation_training.evaluate import Model, measure
from twinloop.foundation_training.samples import MAIN_MIX, WARM_MIX

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the CPU they are computed on."""

    seed: int = 42
    steps: int = 3200
    warm_mix_steps: int = 400
    """Steps before samples that need a comparison (wrong passages, two passages) come in."""
    max_tokens: int = 2048
    """Tokens a batch, padding included."""
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward_size: int = 336
    muon_rate: float = 0.014
    """Learning rate of the matrices; 0.021 unlearnt copying when contexts grew."""
    adamw_rate: float = 2e-3
    rate_warm_up_steps: int = 60
    decay_share: float = 0.4
    """Share of the steps, at the end, over which both rates fall to zero."""
    evaluate_every: int = 200
    evaluation_size: int = 128


@dataclass(frozen=True)
class Row:
    """One line of the training log."""

    step: int
    cpu_seconds: float
    tokens: int
    loss: float
    scores: dict[str, float]


def rate_factor(recipe: Recipe, step: int) -> float:
    """Multiplier of both learning rates: linear warm-up, plateau, linear decay to zero."""
    warm_up = min(1.0, (step + 1) / recipe.rate_warm_up_steps)
    decay = (recipe.steps - step) / max(1.0, recipe.steps * recipe.decay_share)
    return min(warm_up, decay, 1.0)


def build_model(recipe: Recipe, tokenizer: Tokenizer) -> Model:
    """A randomly initialised model; torch's seed is set here."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.feed_forward_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation="sdpa"
    )


def train(
    recipe: Recipe,
    tokenizer: Tokenizer,
    bank: Sequence[Fact],
    *,
    report: Callable[[Row], None],
    is_enough: Callable[[int, float, Model], bool] | None = None,
) -> Model:
    """Run the recipe and return the trained model; `report` gets a row every `evaluate_every` steps.

    `is_enough` is asked after every step (steps done, CPU seconds so far, the model) and ends the training early. The
    same recipe, CPU model and thread count give the same weights. CPU seconds exclude the evaluations and `is_enough`.
    """
    model = build_model(recipe, tokenizer)
    optimizers = _optimizers(recipe, model)
    spent, tokens, losses = 0.0, 0, []
    batches = _batches(recipe, tokenizer, bank)
    for step in range(recipe.steps):
        started = time.process_time()
        batch = next(batches)
        loss = _step(model, optimizers, batch, factor=rate_factor(recipe, step))
        losses.append(loss)
        tokens += int(batch.ids.size)
        spent += time.process_time() - started
        if is_enough is not None and is_enough(step + 1, spent, model):
            break
        if (step + 1) % recipe.evaluate_every == 0 or step + 1 == recipe.steps:
            model.eval()
            scores = measure(model, tokenizer, bank, n=recipe.evaluation_size)
            model.train()
            report(Row(step + 1, round(spent, 1), tokens, round(sum(losses) / len(losses), 4), scores))
            losses = []
    return model.eval()


def _batches(recipe: Recipe, tokenizer: Tokenizer, bank: Sequence[Fact]) -> Iterator[Batch]:
    random = Random(f"samples/{recipe.seed}")
    drawn = 0
    while True:
        mix = WARM_MIX if drawn < recipe.warm_mix_steps else MAIN_MIX
        for batch in chunk_of_batches(random, tokenizer, bank=bank, mix=mix, max_tokens=recipe.max_tokens):
            drawn += 1
            yield batch


def _optimizers(recipe: Recipe, model: Model) -> list[tuple[torch.optim.Optimizer, float]]:
    import torch

    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed" not in name
        (matrices if is_matrix else rest).append(parameter)
    muon = torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01, momentum=0.95)
    adamw = torch.optim.AdamW(rest, lr=recipe.adamw_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, recipe.muon_rate), (adamw, recipe.adamw_rate)]


def _step(
    model: Model,
    optimizers: list[tuple[torch.optim.Optimizer, float]],
    batch: Batch,
    *,
    factor: float,
) -> float:
    import torch

    ids = torch.from_numpy(batch.ids)
    weights = torch.from_numpy(batch.weights)[:, 1:]
    weighted = weights > 0  # the output layer runs on these positions alone
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][weighted]
    each = torch.nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][weighted], reduction="none")
    loss = (each * weights[weighted]).sum() / weights.sum()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, rate in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())
