from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from twinloop.errors import ArtifactError
from twinloop.model_runtime.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Adapter,
    AdapterConfig,
    adapter_files,
    parse_adapter,
)

MODULE = "model.layers.0.self_attn.q_proj"


def _adapter() -> Adapter:
    return Adapter(
        AdapterConfig(rank=2, alpha=4, target_modules=("q_proj",)),
        {MODULE: (torch.ones(2, 3), torch.ones(5, 2))},
    )


def _files(**config: object) -> dict[str, bytes]:
    files = adapter_files(_adapter())
    return {**files, ADAPTER_CONFIG: json.dumps({**json.loads(files[ADAPTER_CONFIG]), **config}).encode()}


def test_writing_and_reading_gives_the_same_bytes_again() -> None:
    files = adapter_files(_adapter())
    assert adapter_files(parse_adapter(files)) == files


def test_a_config_as_peft_writes_it_is_accepted(tmp_path: object) -> None:
    from peft import LoraConfig

    document = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"]).to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in document.items()}
    files = {
        **adapter_files(_adapter()),
        ADAPTER_CONFIG: json.dumps(plain, default=str).replace("PeftType.", "").encode(),
    }
    assert parse_adapter(files).config.scaling == 2.0


@pytest.mark.parametrize(
    "config",
    [
        {"auto_mapping": {"parent_library": "os"}},
        {"megatron_config": {}},
        {"megatron_core": "evil.module"},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 8}},
        {"never_heard_of": 1},
        {"peft_type": "IA3"},
        {"r": 0},
        {"r": "2"},
        {"r": 3},
        {"lora_alpha": None},
        {"lora_alpha": float("nan")},
        {"target_modules": "all-linear"},
        {"target_modules": []},
    ],
)
def test_a_config_that_would_change_the_arithmetic_or_import_code_is_refused(
    config: dict[str, object],
) -> None:
    with pytest.raises(ArtifactError):
        parse_adapter(_files(**config))


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "extra.json"])
def test_any_other_file_is_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=name):
        parse_adapter({**_files(), name: b""})


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {f"base_model.model.{MODULE}.lora_A.weight": torch.ones(2, 3)},
        {"base_model.model.embed.lora_embedding_A": torch.ones(2, 3)},
        {
            f"base_model.model.{MODULE}.lora_A.weight": torch.full((2, 3), float("nan")),
            f"base_model.model.{MODULE}.lora_B.weight": torch.ones(5, 2),
        },
        {
            f"base_model.model.{MODULE}.lora_A.weight": torch.ones(2, 3, dtype=torch.int32),
            f"base_model.model.{MODULE}.lora_B.weight": torch.ones(5, 2),
        },
    ],
)
def test_weights_that_are_no_finite_pairs_are_refused(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ArtifactError):
        parse_adapter({**_files(), ADAPTER_WEIGHTS: safetensors.torch.save(tensors)})


def test_broken_bytes_are_refused() -> None:
    with pytest.raises(ArtifactError, match="safetensors"):
        parse_adapter({**_files(), ADAPTER_WEIGHTS: b"no tensors here"})
