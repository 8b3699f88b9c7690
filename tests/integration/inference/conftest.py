"""The shipped model with two releases, for every test of a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.inference.bench import ModelBench


@pytest.fixture
def model(tmp_path: Path) -> ModelBench:
    return ModelBench(tmp_path)
