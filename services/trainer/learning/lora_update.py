"""One LoRA update: rows in, adapter and Fisher bytes out; the same inputs give the same bytes.

Forgetting is fought three ways: rows of the replay buffer and of the general replay stand in every step, EWC pulls the
weights that mattered back to the parent's, and only the adapter changes, so that undoing an update is one file less.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from torch import nn

from services.trainer.learning import consolidation
from services.trainer.learning.dataset import Example
from services.trainer.learning.evaluation import answer_logits, by_length, exact_match, padded
from services.trainer.learning.fused_lora import FusedLinear
from services.trainer.learning.replay_batches import NO_ROWS, Rows, Step, steps
from services.trainer.learning.settings import LearningSettings
from twinloop.errors import ArtifactError, TwinLoopError
from twinloop.model_runtime.adapter_bank import keeps_weights_transposed, linear_shapes
from twinloop.model_runtime.adapter_files import Adapter, AdapterConfig, adapter_files, parse_adapter
from twinloop.model_runtime.foundation import Foundation

Report = Callable[[Mapping[str, Any]], None]
Scores = Mapping[str, float | None]
_NAME = "learned"
# The probe stands last: it is told before and after, but never decides when to stop.
_MEASURED = ("gate", "update", "replay", "general", "grounded", "probe")


class Diverged(TwinLoopError):
    """The loss is no longer a number: these rows cannot be learned with these settings."""


@dataclass(frozen=True)
class Material:
    """Everything an update learns from and is measured on."""

    new: Rows
    gate: Rows = NO_ROWS
    """The new facts as they are not trained; empty: the gate looks at `new`."""
    replay: Rows = NO_ROWS
    general: Rows = NO_ROWS
    probe: Rows = NO_ROWS
    """Never trained; grounding before and after."""
    earlier: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    """Rows of the buffer by the update that taught them: each is measured before and after."""


@dataclass(frozen=True)
class Parent:
    """The adapter an update starts from."""

    files: Mapping[str, bytes]
    fisher: bytes | None = None


@dataclass(frozen=True)
class Update:
    """A finished update."""

    files: Mapping[str, bytes]
    """PEFT's two files."""
    fisher: bytes
    metrics: Mapping[str, Any] = field(default_factory=dict)


def train_update(
    foundation: Foundation,
    material: Material,
    *,
    settings: LearningSettings,
    seed: int,
    clock: Callable[[], float],
    parent: Parent | None = None,
    report: Report = lambda _event: None,
) -> Update:
    """Train an adapter from its parent or from nothing and leave the foundation as it was.

    Raises ArtifactError when the parent does not fit and Diverged when the loss is no longer finite.
    """
    with torch.random.fork_rng(devices=[] if foundation.device.type == "cpu" else None):
        torch.manual_seed(seed)
        with _adapted(foundation, parent, settings) as (config, linears):
            run = _Run(foundation, material, settings=settings, linears=linears, clock=clock, report=report)
            fisher = None if parent is None or parent.fisher is None else parent.fisher
            return run.update(config, seed=seed, parent_fisher=fisher)


class _Run:
    """The state of one update while it runs."""

    def __init__(
        self,
        foundation: Foundation,
        material: Material,
        *,
        settings: LearningSettings,
        linears: Mapping[str, nn.Linear],
        clock: Callable[[], float],
        report: Report,
    ) -> None:
        self._model, self._device = foundation.model, foundation.device
        self._material, self._settings, self._linears = material, settings, linears
        self._parameters: Mapping[str, nn.Parameter] = {
            name: linear.get_parameter("weight") for name, linear in linears.items()
        }
        self._clock, self._report = clock, report
        self._optimizer = torch.optim.AdamW(
            [
                {"params": self._side("A"), "peak": settings.learning_rate},
                {"params": self._side("B"), "peak": settings.learning_rate * settings.rate_ratio},
            ],
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def update(self, config: AdapterConfig, *, seed: int, parent_fisher: bytes | None) -> Update:
        known = consolidation.fisher_from_bytes(parent_fisher, self._parameters) if parent_fisher else None
        anchor = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._report({"event": "adapted"})
        before, earlier = self._scores(), self._earlier_scores()
        self._report({"event": "measured", **before})
        losses, stopped = self._train(seed, before=before, anchor=anchor, fisher=known)
        new = consolidation.estimate_fisher(self._linears, self._fisher_groups(), backward=self._backward_sum)
        fisher = consolidation.consolidated(known, new, decay=self._settings.fisher_decay)
        self._report({"event": "consolidated"})
        return Update(
            files=adapter_files(Adapter(config, _factors(self._parameters))),
            fisher=consolidation.fisher_to_bytes(fisher),
            metrics={
                "steps": len(losses),
                "stopped": stopped,
                "loss": [round(loss, 6) for loss in losses],
                **self._compared(before, self._scores()),
                "forgetting": [
                    {"update": name, "rows": rows, "before": was, "after": now}
                    for (name, rows, was), (_, _, now) in zip(earlier, self._earlier_scores(), strict=True)
                ],
            },
        )

    def _side(self, side: str) -> list[nn.Parameter]:
        return [value for name, value in self._parameters.items() if name.endswith(f".lora_{side}")]

    def _compared(self, before: Scores, after: Scores) -> dict[str, Any]:
        gate = after["gate"]
        return {
            "gate_exact_match": gate,
            "gate_passed": gate is not None and gate >= self._settings.target_exact_match,
            "update_exact_match": after["update"],
            "replay_exact_match_before": before["replay"],
            "replay_exact_match": after["replay"],
            "general_exact_match_before": before["general"],
            "general_exact_match_after": after["general"],
            "probe_before": before["probe"],
            "probe_after": after["probe"],
        }

    def _train(
        self,
        seed: int,
        *,
        before: Scores,
        anchor: consolidation.Fisher,
        fisher: consolidation.Fisher | None,
    ) -> tuple[list[float], str]:
        settings, material = self._settings, self._material
        started, losses = self._clock(), []
        batches = steps(material.new, material.replay, material.general, settings=settings, seed=seed)
        for number in range(settings.max_steps):
            losses.append(self._step(next(batches), number, anchor=anchor, fisher=fisher))
            self._report({"event": "step", "step": number + 1, "loss": round(losses[-1], 6)})
            if (number + 1) % settings.evaluate_every == 0 and self._is_learned(before):
                return losses, "gate"
            if settings.max_seconds is not None and self._clock() - started > settings.max_seconds:
                return losses, "seconds"
        return losses, "steps"

    def _step(
        self, step: Step, number: int, *, anchor: consolidation.Fisher, fisher: consolidation.Fisher | None
    ) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(self._settings, number)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._backward([*step.closed, *step.grounded])
        if not math.isfinite(loss):
            raise Diverged(f"loss is {loss} at step {number + 1}; lower learning_rate or look at the rows")
        if fisher is not None and self._settings.ewc_lambda > 0:
            consolidation.pull_back(self._parameters, anchor, fisher, strength=self._settings.ewc_lambda)
        nn.utils.clip_grad_norm_(list(self._parameters.values()), self._settings.clip_norm)
        self._optimizer.step()
        return loss

    def _backward(self, examples: Sequence[Example]) -> float:
        """Accumulate the mean loss per answer token over separately padded forwards; returns it."""
        count = sum(example.answer_tokens for example in examples)
        total = 0.0
        for group in by_length(examples, max_tokens=self._settings.tokens_per_forward):
            loss = self._summed_loss([examples[index] for index in group]) / count
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total

    def _backward_sum(self, examples: Sequence[Example]) -> None:
        torch.autograd.backward(self._summed_loss(examples))

    def _summed_loss(self, examples: Sequence[Example]) -> torch.Tensor:
        batch = padded(examples, self._device)
        with _autocast(self._device, self._settings.precision):
            logits = answer_logits(self._model, batch)
        return nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch.labels.flatten(), ignore_index=-100, reduction="sum"
        )

    def _is_learned(self, before: Scores) -> bool:
        """Whether everything new is known and nothing old was lost, cheapest question first."""
        settings = self._settings
        now: dict[str, float | None] = {}
        for name in _MEASURED[:-1]:
            now[name] = value = self._score(name)
            kept = (before[name] or 0.0) - settings.max_old_loss
            wanted = settings.target_exact_match if name in ("gate", "update") else kept
            if value is not None and value < wanted:
                self._report({"event": "evaluated", "exact_match": now, "short_of": name})
                return False
        self._report({"event": "evaluated", "exact_match": now, "short_of": None})
        return True

    def _scores(self) -> Scores:
        return {name: self._score(name) for name in _MEASURED}

    def _earlier_scores(self) -> list[tuple[str, int, float | None]]:
        """(update, rows looked at, share of exact matches), by the update's name."""
        chosen = {
            name: spread(examples, self._settings.matrix_rows)
            for name, examples in sorted(self._material.earlier.items())
        }
        return [(name, len(rows), exact_match(self._model, rows)) for name, rows in chosen.items()]

    def _score(self, name: str) -> float | None:
        material = self._material
        gate = material.gate if len(material.gate) else material.new
        pools: dict[str, Sequence[Example]] = {
            "gate": gate.closed or gate.grounded,
            "update": material.new.closed or material.new.grounded,
            "replay": material.replay.closed or material.replay.grounded,
            "general": material.general.closed,
            "grounded": material.general.grounded,
            "probe": material.probe.grounded,
        }
        return exact_match(self._model, spread(pools[name], self._settings.evaluation_rows))

    def _fisher_groups(self) -> Iterator[list[Example]]:
        new = self._material.new
        chosen = spread(new.closed or new.grounded, self._settings.fisher_samples)
        for group in by_length(chosen, max_tokens=self._settings.tokens_per_forward):
            yield [chosen[index] for index in group]


def rate_factor(settings: LearningSettings, step: int) -> float:
    """Multiplier of the learning rate: linear warm-up, then a cosine down to `final_rate_share`, which stays."""
    if step < settings.warm_up_steps:
        return (step + 1) / settings.warm_up_steps
    length = max(1, settings.decay_steps - settings.warm_up_steps)
    done = min(1.0, (step - settings.warm_up_steps) / length)
    return settings.final_rate_share + (1 - settings.final_rate_share) * 0.5 * (1 + math.cos(math.pi * done))


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """At most `count` examples, evenly spaced over all of them."""
    if len(examples) <= count:
        return list(examples)
    return [examples[index * len(examples) // count] for index in range(count)]


@contextlib.contextmanager
def _adapted(
    foundation: Foundation, parent: Parent | None, settings: LearningSettings
) -> Iterator[tuple[AdapterConfig, dict[str, nn.Linear]]]:
    """Put a trainable adapter into the model for the time of the block; yields its layers by parameter name."""
    adapter = None if parent is None else parse_adapter(parent.files)
    config = _config(foundation, settings) if adapter is None else adapter.config
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft takes a float as well
        target_modules=list(config.target_modules),
        use_rslora=config.use_rslora,
        lora_dropout=0.0,
        bias="none",
        # GPT-2 keeps its weights transposed; the factors of the adapter have one form for both kinds of module.
        fan_in_fan_out=keeps_weights_transposed(foundation.model),
    )
    lora._register_custom_module({nn.Linear: FusedLinear})
    model = peft.get_peft_model(foundation.model, lora, adapter_name=_NAME)
    try:
        linears = {
            name.removeprefix("base_model.model.").removesuffix(f".{_NAME}"): module
            for name, module in model.named_modules()
            if name.endswith((f".lora_A.{_NAME}", f".lora_B.{_NAME}")) and isinstance(module, nn.Linear)
        }
        if adapter is not None:
            _start_from(adapter, {name: each.get_parameter("weight") for name, each in linears.items()})
        yield config, linears
    finally:
        model.unload()
        if hasattr(foundation.model, "peft_config"):
            del foundation.model.peft_config


def _config(foundation: Foundation, settings: LearningSettings) -> AdapterConfig:
    names = settings.target_modules or tuple(
        {path.split(".")[-1] for path in linear_shapes(foundation.model)}
    )
    return AdapterConfig(
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=tuple(sorted(names)),
        base_model=foundation.digest or f"{foundation.spec.source}@{foundation.spec.revision}",
    )


def _start_from(adapter: Adapter, parameters: Mapping[str, nn.Parameter]) -> None:
    tensors = {
        f"{path}.lora_{side}": pair[n]
        for path, pair in adapter.factors.items()
        for n, side in enumerate("AB")
    }
    if {name: tuple(value.shape) for name, value in tensors.items()} != {
        name: tuple(value.shape) for name, value in parameters.items()
    }:
        raise ArtifactError("parent adapter: its modules or shapes are not those of this foundation")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _factors(parameters: Mapping[str, nn.Parameter]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    paths = {name.removesuffix(".lora_A") for name in parameters if name.endswith(".lora_A")}
    return {
        path: (parameters[f"{path}.lora_A"].data, parameters[f"{path}.lora_B"].data) for path in sorted(paths)
    }


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    wanted = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, dtype=torch.bfloat16) if wanted else contextlib.nullcontext()
