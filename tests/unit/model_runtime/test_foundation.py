from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from twinloop.errors import ArtifactError, ConfigError
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, folder_digest, load_foundation


def test_a_loaded_foundation_is_frozen_and_knows_its_digest(
    foundation: Foundation, foundation_folder: Path
) -> None:
    assert foundation.digest == folder_digest(foundation_folder)
    assert not any(parameter.requires_grad for parameter in foundation.model.parameters())
    assert not foundation.model.training
    assert foundation.stop_ids == {4}
    assert torch.get_num_threads() == 1


def test_a_changed_byte_is_refused_before_anything_is_parsed(foundation_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(foundation_folder, copy)
    digest = folder_digest(copy)
    (copy / "config.json").write_bytes(b"this is no JSON")
    with pytest.raises(ArtifactError, match="digest"):
        load_foundation(FoundationSpec(source=str(copy), digest=digest))


def test_the_manifest_beside_the_model_does_not_change_its_digest(
    foundation_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(foundation_folder, copy)
    (copy / "MANIFEST.json").write_text("{}")
    assert folder_digest(copy) == folder_digest(foundation_folder)


def test_a_folder_with_a_pickle_is_refused(foundation_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(foundation_folder, copy)
    (copy / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin"):
        load_foundation(FoundationSpec(source=str(copy)))


@pytest.mark.parametrize("revision", [None, "main", "v1.0"])
def test_a_hub_name_without_a_full_commit_id_is_refused(revision: str | None) -> None:
    with pytest.raises(ConfigError, match="commit id"):
        load_foundation(FoundationSpec(source="some/model", revision=revision))


def test_a_missing_foundation_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"python -m twinloop\.foundation_training"):
        load_foundation(FoundationSpec(source=str(tmp_path / "absent")))


def test_an_absent_device_is_named(foundation_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="CUDA"):
        load_foundation(FoundationSpec(source=str(foundation_folder), device="cuda"))


def test_a_foundation_without_a_chat_template_says_so(foundation: Foundation) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        foundation.chat_template([{"role": "user", "content": "x"}])
