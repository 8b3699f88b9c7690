"""What every store of the routing key promises; the classes that run it only say how to make one."""

from __future__ import annotations

import json

import pytest

from twinloop.errors import ConfigError
from twinloop.routing.store import Installed, InstallMode, Refused, RoutingStore

INCARNATION = "0123456789abcdef" * 2


def state(epoch: int, incarnation: str = INCARNATION, **more: object) -> bytes:
    return json.dumps({"epoch": epoch, "incarnation": incarnation, **more}).encode()


class RoutingStoreContract:
    """Inherited by one class for each store; `store` is empty, `overwrite` puts bytes past the rules."""

    def overwrite(self, store: RoutingStore, value: bytes) -> None:
        raise NotImplementedError

    def test_an_empty_store_has_no_key(self, store: RoutingStore) -> None:
        assert store.read() is None

    def test_what_was_installed_is_read_byte_for_byte(self, store: RoutingStore) -> None:
        value = state(1, text="é\u2028 ")
        assert isinstance(store.install(value, mode="create"), Installed)
        assert store.read() == value

    def test_a_read_may_be_begun_before_it_is_finished(self, store: RoutingStore) -> None:
        store.install(state(1), mode="create")
        store.begin_read()
        assert store.finish_read() == state(1)
        assert store.finish_read() == state(1)

    def test_a_read_begun_again_answers_as_of_the_second_beginning(self, store: RoutingStore) -> None:
        store.install(state(1), mode="create")
        store.begin_read()
        store.install(state(2), mode="advance")
        store.begin_read()
        assert store.finish_read() == state(2)
        store.install(state(3), mode="advance")
        assert store.read() == state(3)

    @pytest.mark.parametrize("mode", ["advance", "break-glass"])
    def test_only_creating_and_restoring_fill_a_missing_key(
        self, store: RoutingStore, mode: InstallMode
    ) -> None:
        assert store.install(state(5), mode=mode) == Refused("missing_key")
        assert store.read() is None
        assert isinstance(store.install(state(5), mode="restore"), Installed)

    def test_creating_never_overwrites(self, store: RoutingStore) -> None:
        store.install(state(1), mode="create")
        assert store.install(state(2), mode="create") == Refused("key_exists", 1, INCARNATION)
        assert store.read() == state(1)

    @pytest.mark.parametrize("mode", ["advance", "restore", "break-glass"])
    def test_only_a_higher_epoch_of_the_same_incarnation_is_written(
        self, store: RoutingStore, mode: InstallMode
    ) -> None:
        store.install(state(3), mode="create")
        assert store.install(state(2), mode=mode) == Refused("not_higher", 3, INCARNATION)
        assert store.install(state(3, other=1), mode=mode) == Refused("not_higher", 3, INCARNATION)
        foreign = store.install(state(9, "f" * 32), mode=mode)
        assert foreign == Refused("other_incarnation", 3, INCARNATION)
        assert store.read() == state(3)
        assert isinstance(store.install(state(4), mode=mode), Installed)
        assert store.read() == state(4)

    @pytest.mark.parametrize("mode", ["create", "advance", "restore", "break-glass"])
    def test_a_write_whose_answer_was_lost_may_be_repeated(
        self, store: RoutingStore, mode: InstallMode
    ) -> None:
        store.install(state(3), mode="create")
        assert isinstance(store.install(state(3), mode=mode), Installed)

    @pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"epoch": "9"}', b'"text"', b"\xff\xfe"])
    def test_garbage_is_overwritten_by_a_restore_alone(self, store: RoutingStore, garbage: bytes) -> None:
        self.overwrite(store, garbage)
        assert store.install(state(3), mode="advance") == Refused("unreadable")
        assert store.install(state(3), mode="create") == Refused("unreadable")
        assert store.read() == garbage
        assert isinstance(store.install(state(3), mode="restore"), Installed)

    @pytest.mark.parametrize(
        "value", [b"", b"{}", b"[1]", b'{"epoch": 1}', b'{"epoch": "1", "incarnation": "x"}']
    )
    def test_what_is_no_state_is_not_written(self, store: RoutingStore, value: bytes) -> None:
        with pytest.raises(ConfigError):
            store.install(value, mode="create")
        assert store.read() is None

    def test_large_epochs_stay_exact(self, store: RoutingStore) -> None:
        large = 2**53 - 1
        store.install(state(large - 1), mode="create")
        installed = store.install(state(large), mode="advance")
        assert isinstance(installed, Installed)
        assert installed.epoch == large
        assert store.install(state(large - 1), mode="advance") == Refused("not_higher", large, INCARNATION)

    def test_closing_twice_is_allowed(self, store: RoutingStore) -> None:
        store.close()
        store.close()
