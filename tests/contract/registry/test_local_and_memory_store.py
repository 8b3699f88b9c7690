"""The store contract on a local folder and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.registry.blob_store_contract import BlobStoreContract
from twinloop.registry.objects import Objects, open_objects
from twinloop.registry.store_settings import StoreSettings


class TestMemoryStore(BlobStoreContract):
    @pytest.fixture
    def objects(self) -> Objects:
        return open_objects(StoreSettings(url="memory:///"))


class TestLocalStore(BlobStoreContract):
    @pytest.fixture
    def objects(self, tmp_path: Path) -> Objects:
        return open_objects(StoreSettings(url=f"file://{tmp_path}/a store", create_folder=True))
