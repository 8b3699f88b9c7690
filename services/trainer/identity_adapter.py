"""A LoRA adapter that changes nothing: every A drawn from the seed, every B zero, so that training can start from it.

B = 0 makes B·A·x = 0 for every x, while the gradient of B is not zero (Hu et al. 2021, "LoRA", section 4.1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from services.trainer.settings import FoundationSettings

Shapes = Mapping[str, tuple[int, int]]
"""Module path to (inputs, outputs)."""

_PREFIX = "base_model.model."
_PLAIN_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose two-dimensional weights are all linear modules but for embeddings and output head."""
_NOT_ADAPTED = ("embed_tokens", "lm_head")


def identity_adapter(
    foundation: FoundationSettings, *, rank: int, alpha: float, seed: int, base_model: str
) -> dict[str, bytes]:
    """PEFT's two files for every linear module of the foundation but its output head; equal arguments, equal bytes.

    Raises ConfigError or ArtifactError where the foundation cannot be loaded.
    """
    folder = Path(foundation.source)
    shapes = stored_shapes(folder) if folder.is_dir() else None
    return adapter_bytes(
        shapes or _loaded_shapes(foundation), rank=rank, alpha=alpha, seed=seed, base_model=base_model
    )


def adapter_bytes(shapes: Shapes, *, rank: int, alpha: float, seed: int, base_model: str) -> dict[str, bytes]:
    """The files in the spelling of `twinloop.model_runtime.adapter_files`, which a test compares them with."""
    config = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted({path.split(".")[-1] for path in shapes}),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }
    weights = safetensors.numpy.save(_factors(shapes, rank=rank, seed=seed), metadata={"format": "pt"})
    return {
        "adapter_config.json": json.dumps(config, sort_keys=True, indent=2).encode() + b"\n",
        "adapter_model.safetensors": weights,
    }


def stored_shapes(folder: Path) -> Shapes | None:
    """Linear modules read from the weight files' headers; None where the kind of model does not show them there."""
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    if kind not in _PLAIN_MODELS:
        return None
    shapes: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(path, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                shape = tensors.get_slice(name).get_shape()
                is_other = any(part in name.split(".") for part in _NOT_ADAPTED)
                if len(shape) == 2 and name.endswith(".weight") and not is_other:
                    shapes[name.removesuffix(".weight")] = (shape[1], shape[0])
    return shapes or None


def _loaded_shapes(foundation: FoundationSettings) -> Shapes:
    from twinloop.model_runtime.adapter_bank import linear_shapes
    from twinloop.model_runtime.foundation import FoundationSpec, load_foundation

    spec = FoundationSpec(
        source=foundation.source,
        revision=foundation.revision,
        dtype=foundation.dtype,
        device=foundation.device,
        threads=foundation.threads,
    )
    return linear_shapes(load_foundation(spec).model)


def _factors(shapes: Shapes, *, rank: int, seed: int) -> dict[str, NDArray[np.float32]]:
    generator = np.random.Generator(np.random.PCG64(seed))
    factors: dict[str, NDArray[np.float32]] = {}
    for module, (inputs, outputs) in sorted(shapes.items()):
        bound = 1.0 / math.sqrt(inputs)  # as PEFT draws it: Kaiming uniform with a = sqrt(5)
        drawn = generator.uniform(-bound, bound, (rank, inputs))
        factors[f"{_PREFIX}{module}.lora_A.weight"] = drawn.astype(np.float32)
        factors[f"{_PREFIX}{module}.lora_B.weight"] = np.zeros((outputs, rank), dtype=np.float32)
    return factors
