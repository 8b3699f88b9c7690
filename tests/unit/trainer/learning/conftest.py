"""A foundation small enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.model_runtime.tiny_models import write_tiny_foundation
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, load_foundation


@pytest.fixture(scope="session")
def foundation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation")
    write_tiny_foundation(folder)
    return folder


@pytest.fixture(scope="session")
def foundation(foundation_folder: Path) -> Foundation:
    return load_foundation(FoundationSpec(source=str(foundation_folder)))
