"""A foundation small enough to build in a test: random weights, one token per byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2LMHeadModel

from tests.unit.model_runtime.tiny_models import random_adapter, tiny_gpt2, write_tiny_foundation
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, folder_digest, load_foundation


@pytest.fixture(scope="session")
def foundation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation")
    write_tiny_foundation(folder)
    return folder


@pytest.fixture(scope="session")
def foundation(foundation_folder: Path) -> Foundation:
    return load_foundation(
        FoundationSpec(source=str(foundation_folder), digest=folder_digest(foundation_folder))
    )


@pytest.fixture
def make_adapter() -> Any:
    return random_adapter


@pytest.fixture
def gpt2() -> GPT2LMHeadModel:
    return tiny_gpt2()
