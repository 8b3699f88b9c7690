"""How an adapter is trained; the values were chosen by measurement on the shipped foundation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from twinloop.errors import ConfigError


@dataclass(frozen=True)
class LearningSettings:
    """Settings of one LoRA update; a parent adapter's rank, alpha and modules win over those given here."""

    rank: int = 16
    """Rank of an adapter that has no parent."""
    alpha: float = 64.0
    """With rank 16: twice the usual scale reached new facts in fewer steps, with old facts kept (benchmarks)."""
    target_modules: tuple[str, ...] = ()
    """Names of the modules to adapt; empty means every linear module but the output head."""
    learning_rate: float = 5e-3
    """Highest rate of AdamW on the factor A, reached after the warm-up."""
    rate_ratio: float = 1.0
    """Rate of the factor B over that of A: B starts at zero and has further to go (LoRA+, arXiv 2402.12354)."""
    beta1: float = 0.9
    """AdamW's decay of the first moment."""
    beta2: float = 0.99
    """AdamW's decay of the second moment."""
    weight_decay: float = 0.0
    """AdamW's weight decay, on the adapter's factors."""
    warm_up_steps: int = 3
    """Steps in which the rate rises from 0."""
    decay_steps: int = 60
    """Steps after which the cosine ends ..."""
    final_rate_share: float = 0.1
    """... at this share of `learning_rate`; later steps keep it."""
    clip_norm: float = 1.0
    """Longest gradient; a longer one is shortened to it."""
    max_steps: int = 60
    """Steps after which the update ends in any case."""
    max_seconds: float | None = None
    """Stop at the next step after this many seconds; such a run cannot be repeated to the same bytes."""
    evaluate_every: int = 5
    """Steps between looks at the gate."""
    target_exact_match: float = 0.95
    """Stop early once gate and update rows reach this ..."""
    max_old_loss: float = 0.02
    """... and what was known before (buffer and general rows) lost at most this."""
    evaluation_rows: int = 256
    """Rows looked at per kind and evaluation."""
    matrix_rows: int = 16
    """Rows looked at per earlier update for the forgetting matrix."""
    batch_size: int = 32
    """Rows of the update and the buffer together per step."""
    replay_share: float = 0.25
    """Share of `batch_size` that comes from the buffer, while it has rows."""
    grounded_share: float = 0.125
    """Share of either that is answered from a passage, while there are such rows."""
    general_closed: int = 12
    """Closed-book rows of the general replay per step, on top of `batch_size`."""
    general_grounded: int = 4
    """Rows with passage of the general replay per step, on top of `batch_size`."""
    ewc_lambda: float = 0.03
    """Weight of (lambda / 2) * sum F * (theta - parent)^2, F normalised to mean 1; 0 switches it off."""
    fisher_samples: int = 64
    """Single-example gradients that estimate the Fisher information."""
    fisher_decay: float = 0.95
    """What of the parent's Fisher information stays (online EWC, arXiv 1805.06370)."""
    tokens_per_step: int = 2048
    """Tokens of a step, without padding, on average: where rows are longer a step has fewer of every kind."""
    tokens_per_forward: int = 8192
    """Padded tokens per forward; a larger step accumulates gradients over several."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 autocast on CUDA that has it, else float32."""

    def __post_init__(self) -> None:
        whole = (
            "rank",
            "max_steps",
            "decay_steps",
            "evaluate_every",
            "batch_size",
            "evaluation_rows",
            "matrix_rows",
            "tokens_per_step",
            "tokens_per_forward",
        )
        for name in whole:
            if getattr(self, name) < 1:
                raise ConfigError(f"settings: {name} must be at least 1")
        for name in ("warm_up_steps", "general_closed", "general_grounded", "fisher_samples", "ewc_lambda"):
            if getattr(self, name) < 0:
                raise ConfigError(f"settings: {name} must not be negative")
        for name in (
            "replay_share",
            "grounded_share",
            "final_rate_share",
            "target_exact_match",
            "fisher_decay",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"settings: {name} must be from 0 to 1")
        for name in ("learning_rate", "rate_ratio", "alpha", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"settings: {name} must be positive")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"settings: precision {self.precision!r} is none of auto, float32, bfloat16")


def settings_from(values: Mapping[str, Any]) -> LearningSettings:
    """Settings from a job file; raises ConfigError naming the key that is unknown or of the wrong kind."""
    known = {field.name: field for field in fields(LearningSettings)}
    chosen: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"settings: unknown key {key!r}; known are {sorted(known)}")
        chosen[key] = _converted(key, value, known[key].default)
    return LearningSettings(**chosen)


def _converted(key: str, value: Any, default: Any) -> Any:
    if key == "target_modules" and isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if key == "max_seconds" and value is None:
        return None
    wanted = float if key == "max_seconds" else type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"settings: {key} must be {wanted.__name__}, got {value!r}")
    return value
