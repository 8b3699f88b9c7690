"""A LoRA adapter as bytes: PEFT's two files, read through an allow-list, written deterministically.

The config never reaches PEFT's own loader: it has fields that name modules to import (peft#3085).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch

from twinloop.errors import ArtifactError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MAX_RANK = 512

_KEY = re.compile(r"^base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<side>[AB])\.weight$")
_TORCH_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Fields whose value is read or is free text.
_READ = {
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "fan_in_fan_out",
    "peft_type",
    "base_model_name_or_path",
}
_INERT = {"task_type", "peft_version", "revision", "inference_mode", "init_lora_weights", "lora_dropout"}
# Fields PEFT writes with a harmless value; any other value would change the arithmetic or import code: refused.
_ONLY: dict[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None,),
    "alpha_pattern": ({}, None),
    "arrow_config": (None,),
    "auto_mapping": (None,),
    "bias": ("none",),
    "corda_config": (None,),
    "ensure_weight_tying": (False,),
    "eva_config": (None,),
    "exclude_modules": (None,),
    "kasa_config": (None,),
    "layer_replication": (None,),
    "layers_pattern": (None,),
    "layers_to_transform": (None,),
    "loftq_config": ({}, None),
    "lora_bias": (False,),
    "lora_ga_config": (None,),
    "megatron_config": (None,),
    "megatron_core": (None, "megatron.core"),
    "modules_to_save": (None,),
    "monteclora_config": (None,),
    "qalora_group_size": (16,),
    "rank_pattern": ({}, None),
    "target_parameters": (None,),
    "trainable_token_indices": (None,),
    "use_bdlora": (None, False),
    "use_dora": (False,),
    "use_qalora": (False,),
    "velora_config": (None,),
}


@dataclass(frozen=True)
class AdapterConfig:
    """The part of a LoRA config that changes its arithmetic."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    use_rslora: bool = False
    base_model: str | None = None

    @property
    def scaling(self) -> float:
        """Factor on B·A·x, as PEFT computes it (rsLoRA: arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


@dataclass(frozen=True)
class Adapter:
    """A parsed adapter: per module path, A of shape [rank, in] and B of shape [out, rank], unscaled."""

    config: AdapterConfig
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def parse_adapter(files: Mapping[str, bytes]) -> Adapter:
    """Read PEFT's two files; raises ArtifactError naming the file and what in it is refused."""
    if set(files) != {ADAPTER_WEIGHTS, ADAPTER_CONFIG}:
        raise ArtifactError(
            f"adapter has files {sorted(files)}; exactly {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} are read, pickles never"
        )
    config = parse_config(files[ADAPTER_CONFIG])
    try:
        tensors = safetensors.torch.load(files[ADAPTER_WEIGHTS])
    except Exception as cause:  # the parser raises several unrelated classes on broken bytes
        raise ArtifactError(f"{ADAPTER_WEIGHTS}: not a safetensors file: {cause}") from cause
    return Adapter(config, _paired(config, tensors))


def parse_config(document: bytes) -> AdapterConfig:
    """Read adapter_config.json through the allow-list; raises ArtifactError."""
    try:
        values = json.loads(document)
    except ValueError as cause:
        raise ArtifactError(f"{ADAPTER_CONFIG}: not JSON: {cause}") from cause
    if not isinstance(values, dict):
        raise ArtifactError(f"{ADAPTER_CONFIG}: must be one JSON object")
    for key, value in values.items():
        if key in _ONLY and value not in _ONLY[key]:
            raise ArtifactError(f"{ADAPTER_CONFIG}: {key}={value!r} is refused; allowed: {_ONLY[key]}")
        if key not in _ONLY and key not in _READ and key not in _INERT:
            raise ArtifactError(f"{ADAPTER_CONFIG}: unknown key {key!r}")
    if values.get("peft_type") != "LORA":
        raise ArtifactError(
            f"{ADAPTER_CONFIG}: peft_type is {values.get('peft_type')!r}; only LORA is served"
        )
    rank: Any = values.get("r")
    alpha: Any = values.get("lora_alpha")
    targets: Any = values.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ArtifactError(f"{ADAPTER_CONFIG}: r={rank!r}; needs a whole number from 1 to {MAX_RANK}")
    if type(alpha) not in (int, float) or not math.isfinite(alpha) or alpha <= 0:
        raise ArtifactError(f"{ADAPTER_CONFIG}: lora_alpha={alpha!r}; needs a positive number")
    if not isinstance(targets, list) or not targets or not all(isinstance(name, str) for name in targets):
        raise ArtifactError(f"{ADAPTER_CONFIG}: target_modules={targets!r}; needs a list of module names")
    base = values.get("base_model_name_or_path")
    return AdapterConfig(
        rank=rank,
        alpha=alpha,
        target_modules=tuple(sorted(targets)),
        use_rslora=values.get("use_rslora", False) is True,
        base_model=base if isinstance(base, str) else None,
    )


def adapter_files(adapter: Adapter) -> dict[str, bytes]:
    """PEFT's two files, loadable by `PeftModel.from_pretrained`; equal adapters give equal bytes."""
    config = adapter.config
    document = {
        "base_model_name_or_path": config.base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": config.rank,
        "target_modules": sorted(config.target_modules),
        "task_type": "CAUSAL_LM",
        "use_rslora": config.use_rslora,
    }
    tensors: dict[str, torch.Tensor] = {}
    for module, (a, b) in sorted(adapter.factors.items()):
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.detach().cpu().contiguous()
    return {
        ADAPTER_CONFIG: json.dumps(document, sort_keys=True, indent=2).encode() + b"\n",
        ADAPTER_WEIGHTS: safetensors.torch.save(tensors, metadata={"format": "pt"}),
    }


def _paired(
    config: AdapterConfig, tensors: Mapping[str, torch.Tensor]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise ArtifactError(f"{ADAPTER_WEIGHTS}: tensor {key!r} is not a LoRA factor of a linear module")
        if tensor.dtype not in _TORCH_DTYPES or tensor.dim() != 2:
            raise ArtifactError(
                f"{ADAPTER_WEIGHTS}: {key} is {tensor.dtype}, {tensor.dim()}-D; needs a float matrix"
            )
        # A NaN or infinity would reach the other rows of a mixed batch.
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{ADAPTER_WEIGHTS}: {key} holds a value that is not finite")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    factors = {}
    for module, pair in sorted(sides.items()):
        if set(pair) != {"A", "B"}:
            raise ArtifactError(f"{ADAPTER_WEIGHTS}: {module} has only lora_{min(pair)}")
        if pair["A"].shape[0] != config.rank or pair["B"].shape[1] != config.rank:
            ranks = f"{pair['A'].shape[0]}/{pair['B'].shape[1]}"
            raise ArtifactError(
                f"{ADAPTER_WEIGHTS}: {module} has rank {ranks}, the config says {config.rank}"
            )
        factors[module] = (pair["A"], pair["B"])
    if not factors:
        raise ArtifactError(f"{ADAPTER_WEIGHTS}: holds no LoRA factors")
    return factors
