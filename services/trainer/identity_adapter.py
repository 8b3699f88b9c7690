"""A LoRA adapter that changes nothing: every A drawn from the seed, every B zero, so that training can start from it.

B = 0 makes B·A·x = 0 for every x, while the gradient of B is not zero (Hu et al. 2021, "LoRA", section 4.1).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from services.trainer.settings import FoundationSettings

_PREFIX = "base_model.model."


def identity_adapter(
    foundation: FoundationSettings, *, rank: int, alpha: float, seed: int, base_model: str
) -> dict[str, bytes]:
    """PEFT's two files for every linear module of the foundation but its output head; equal arguments, equal bytes.

    Loads the foundation, and with it torch. Raises ConfigError or ArtifactError where it cannot.
    """
    from twinloop.model_runtime.adapter_bank import linear_shapes
    from twinloop.model_runtime.adapter_files import (
        ADAPTER_CONFIG,
        ADAPTER_WEIGHTS,
        adapter_files,
        parse_adapter,
    )
    from twinloop.model_runtime.foundation import FoundationSpec, load_foundation

    source = foundation.source
    spec = FoundationSpec(
        source=str(Path(source).resolve()) if Path(source).is_dir() else source,
        revision=foundation.revision,
        dtype=foundation.dtype,
        device=foundation.device,
        threads=foundation.threads,
    )
    shapes = linear_shapes(load_foundation(spec).model)
    config = {
        "base_model_name_or_path": base_model,
        "lora_alpha": alpha,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted({path.split(".")[-1] for path in shapes}),
    }
    files = {
        ADAPTER_CONFIG: json.dumps(config).encode(),
        ADAPTER_WEIGHTS: safetensors.numpy.save(_factors(shapes, rank=rank, seed=seed)),
    }
    return adapter_files(parse_adapter(files))


def _factors(shapes: dict[str, tuple[int, int]], *, rank: int, seed: int) -> dict[str, NDArray[np.float32]]:
    generator = np.random.Generator(np.random.PCG64(seed))
    factors: dict[str, NDArray[np.float32]] = {}
    for module, (inputs, outputs) in sorted(shapes.items()):
        bound = 1.0 / math.sqrt(inputs)  # as PEFT draws it: Kaiming uniform with a = sqrt(5)
        factors[f"{_PREFIX}{module}.lora_A.weight"] = generator.uniform(-bound, bound, (rank, inputs)).astype(
            np.float32
        )
        factors[f"{_PREFIX}{module}.lora_B.weight"] = np.zeros((outputs, rank), dtype=np.float32)
    return factors
