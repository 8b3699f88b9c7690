from __future__ import annotations

import pytest

from tests.contract.routing.store_contract import RoutingStoreContract, state
from twinloop.errors import Transient
from twinloop.routing.memory_store import MemoryRoutingStore
from twinloop.routing.store import RoutingStore


class TestMemoryRoutingStore(RoutingStoreContract):
    @pytest.fixture
    def store(self) -> MemoryRoutingStore:
        return MemoryRoutingStore()

    def overwrite(self, store: RoutingStore, value: bytes) -> None:
        assert isinstance(store, MemoryRoutingStore)
        store.value = value


def test_a_silent_store_is_transient() -> None:
    store = MemoryRoutingStore(state(1))
    store.is_silent = True
    for call in (store.read, store.finish_read, lambda: store.install(state(2), mode="advance")):
        with pytest.raises(Transient):
            call()
