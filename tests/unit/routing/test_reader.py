from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.routing import RoutingState
from tests.unit.routing.states import state
from twinloop.errors import ConfigError, SignatureError
from twinloop.routing.disk_copy import DiskCopy
from twinloop.routing.memory_store import MemoryRoutingStore
from twinloop.routing.reader import Reading, StateReader
from twinloop.routing.reader_core import ReaderPolicy
from twinloop.routing.verification import state_verifier
from twinloop.signing import KeyRing, Role, create_keys, load_signer, sign_document


def as_bytes(found: RoutingState) -> bytes:
    return found.model_dump_json().encode()


def believe(_: RoutingState) -> None:
    """Every signature holds."""


def reader_of(
    store: MemoryRoutingStore,
    *,
    verify: Callable[[RoutingState], None] = believe,
    disk_copy: DiskCopy | None = None,
) -> StateReader:
    return StateReader(store, verify=verify, policy=ReaderPolicy(hold_max_s=2.0), disk_copy=disk_copy)


def test_an_answer_is_fresh_and_new_only_once() -> None:
    reader = reader_of(MemoryRoutingStore(as_bytes(state(1))))
    assert reader.read(0.0) == Reading(state(1), "fresh", is_new=True)
    assert reader.read(1.0) == Reading(state(1), "fresh", is_new=False)


def test_a_higher_epoch_is_installed() -> None:
    store = MemoryRoutingStore(as_bytes(state(1)))
    reader = reader_of(store)
    reader.read(0.0)
    store.value = as_bytes(state(2))
    assert reader.read(1.0) == Reading(state(2), "fresh", is_new=True)


def test_silence_holds_and_then_the_last_known_good_state_is_used_unconfirmed() -> None:
    store = MemoryRoutingStore(as_bytes(state(1)))
    reader = reader_of(store)
    reader.read(0.0)
    store.is_silent = True
    assert reader.read(1.0) == Reading(None, "hold", problem="silent")
    assert reader.read(2.9).state is None
    static = reader.read(3.0)
    assert (static.state, static.mode, static.unconfirmed) == (state(1), "static", True)


def test_the_first_answer_after_silence_is_fresh_again_and_the_clock_starts_anew() -> None:
    store = MemoryRoutingStore(as_bytes(state(1)))
    reader = reader_of(store)
    reader.read(0.0)
    store.is_silent = True
    reader.read(1.0)
    reader.read(9.0)
    store.is_silent = False
    assert reader.read(9.1) == Reading(state(1), "fresh")
    store.is_silent = True
    assert reader.read(9.2).mode == "hold"


def test_without_any_known_state_silence_never_ends_in_a_guess() -> None:
    store = MemoryRoutingStore()
    store.is_silent = True
    reader = reader_of(store)
    assert reader.read(0.0).state is None
    assert reader.read(1e9) == Reading(None, "hold", problem="silent")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "missing_key"),
        (b"{broken", "malformed"),
        (b"", "malformed"),
        (as_bytes(state(4)), "lower_epoch"),
        (as_bytes(state(5, active="green")), "same_epoch_differs"),
        (as_bytes(state(9, incarnation="f" * 32)), "other_incarnation"),
    ],
)
def test_what_may_not_be_installed_counts_as_no_answer(value: bytes | None, problem: str) -> None:
    store = MemoryRoutingStore(as_bytes(state(5)))
    reader = reader_of(store)
    reader.read(0.0)
    store.value = value
    for now in (1.0, 1.1):
        assert reader.read(now) == Reading(None, "hold", problem=problem)  # type: ignore[arg-type]
    assert reader.installed == state(5)
    assert reader.read(3.5).mode == "static"


def test_a_refused_user_counts_as_no_answer() -> None:
    class Denying(MemoryRoutingStore):
        def finish_read(self) -> bytes | None:
            raise ConfigError("no permission")

    assert reader_of(Denying()).read(0.0).problem == "denied"


def test_a_signature_is_checked_once_for_each_state() -> None:
    checked: list[int] = []
    store = MemoryRoutingStore(as_bytes(state(1)))
    reader = reader_of(store, verify=lambda found: checked.append(found.epoch))
    for now in range(5):
        reader.read(now)
    assert checked == [1]


def test_a_bad_signature_is_checked_once_and_never_installed() -> None:
    checked: list[int] = []

    def refuse(found: RoutingState) -> None:
        checked.append(found.epoch)
        raise SignatureError("forged")

    reader = reader_of(MemoryRoutingStore(as_bytes(state(1))), verify=refuse)
    assert [reader.read(now).problem for now in range(3)] == ["bad_signature"] * 3
    assert (checked, reader.installed) == ([1], None)


@pytest.mark.parametrize(
    ("role", "is_believed"),
    [("gatekeeper", True), ("break-glass", True), ("operator", False), ("inference", False)],
)
def test_only_gatekeeper_and_break_glass_keys_may_write_states(
    tmp_path: Path, role: Role, is_believed: bool
) -> None:
    ring = KeyRing.load(create_keys(tmp_path, {"k-1": (role,)}))
    verify = state_verifier(ring)
    signed = sign_document(state(1), load_signer(tmp_path, "k-1"))
    if is_believed:
        verify(signed)
        with pytest.raises(SignatureError):
            verify(signed.model_copy(update={"epoch": 2}))
    else:
        with pytest.raises(SignatureError, match="may not write"):
            verify(signed)


def test_a_cold_start_while_the_store_is_silent_uses_the_disk_copy(tmp_path: Path) -> None:
    disk = tmp_path / "deep" / "state.json"
    first = reader_of(MemoryRoutingStore(as_bytes(state(5))), disk_copy=DiskCopy(disk))
    first.read(0.0)
    first.close()

    store = MemoryRoutingStore()
    store.is_silent = True
    second = reader_of(store, disk_copy=DiskCopy(disk))
    assert second.read(0.0).mode == "hold"
    static = second.read(2.0)
    assert (static.state, static.mode, static.is_new) == (state(5), "static", True)


def test_a_restart_never_falls_below_the_epoch_on_disk(tmp_path: Path) -> None:
    disk = tmp_path / "state.json"
    disk.write_bytes(as_bytes(state(5)))
    store = MemoryRoutingStore(as_bytes(state(4)))
    reader = reader_of(store, disk_copy=DiskCopy(disk))
    assert reader.read(0.0).problem == "lower_epoch"
    store.value = as_bytes(state(5))
    assert reader.read(0.1) == Reading(state(5), "fresh", is_new=True)


def test_a_restart_takes_the_store_s_word_for_a_new_incarnation_but_a_running_reader_does_not(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "state.json"
    disk.write_bytes(as_bytes(state(5)))
    reborn = state(1, incarnation="f" * 32)
    reader = reader_of(MemoryRoutingStore(as_bytes(reborn)), disk_copy=DiskCopy(disk))
    assert reader.read(0.0).state == reborn
    reader.close()
    assert RoutingState.model_validate_json(disk.read_bytes()) == reborn


def test_a_forged_disk_copy_is_ignored(tmp_path: Path) -> None:
    disk = tmp_path / "state.json"
    disk.write_bytes(as_bytes(state(5)))

    def refuse(_: RoutingState) -> None:
        raise SignatureError("forged")

    assert reader_of(MemoryRoutingStore(), verify=refuse, disk_copy=DiskCopy(disk)).installed is None


def test_an_unwritable_disk_copy_stops_nothing_and_is_reported(tmp_path: Path) -> None:
    copy = DiskCopy(tmp_path / "file" / "state.json")
    reader = reader_of(MemoryRoutingStore(as_bytes(state(1))), disk_copy=copy)
    (tmp_path / "file").write_text("in the way")
    assert reader.read(0.0).mode == "fresh"
    copy.close()
    assert copy.failure is not None
