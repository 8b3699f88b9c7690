"""Of a hundred forged routing states a reader installs none, whatever the forger knows of Redis."""

from __future__ import annotations

import random
from pathlib import Path

from schemas.routing import RoutingState
from tests.unit.routing.states import A, B, canary, state
from twinloop.canonical import canonical_json
from twinloop.routing.memory_store import MemoryRoutingStore
from twinloop.routing.reader import StateReader
from twinloop.routing.verification import state_verifier
from twinloop.signing import KeyRing, Signer, create_keys, load_signer, sign_document

FORGERIES = 100


def forged(number: int, chance: random.Random, good: RoutingState, signers: dict[str, Signer]) -> bytes:
    epoch = good.epoch + chance.randint(1, 1000)
    changed = (
        state(epoch, active="green", canary=canary(slot="blue"))
        if number % 2
        else state(epoch, active="green")
    )
    kind = number % 5
    if kind == 0:
        return canonical_json(changed)
    if kind == 1:
        return canonical_json(changed.model_copy(update={"key_id": good.key_id, "signature": good.signature}))
    if kind == 2:
        # The gatekeeper's own words under another epoch.
        return canonical_json(good.model_copy(update={"epoch": epoch}))
    if kind == 3:
        return canonical_json(sign_document(changed, signers["operator-1"]))
    return canonical_json(
        sign_document(changed, signers["stranger"]).model_copy(update={"key_id": good.key_id})
    )


def test_none_of_a_hundred_forged_states_is_installed(tmp_path: Path) -> None:
    ring = KeyRing.load(
        create_keys(tmp_path / "keys", {"gatekeeper-1": ("gatekeeper",), "operator-1": ("operator",)})
    )
    create_keys(tmp_path / "other", {"stranger": ("gatekeeper",)})
    signers = {
        "operator-1": load_signer(tmp_path / "keys", "operator-1"),
        "stranger": load_signer(tmp_path / "other", "stranger"),
    }
    gatekeeper = load_signer(tmp_path / "keys", "gatekeeper-1")
    good = sign_document(state(7), gatekeeper)
    store = MemoryRoutingStore(canonical_json(good))
    reader = StateReader(store, verify=state_verifier(ring))
    assert reader.read(0.0).state == good
    chance = random.Random(42)
    for number in range(FORGERIES):
        store.value = forged(number, chance, good, signers)
        reading = reader.read(0.1)
        assert reading.state is None, number
        assert reading.problem == "bad_signature"
        assert reader.installed == good
    # The control: the same change, signed by the right key, is installed.
    store.value = canonical_json(sign_document(state(2000, active="green"), gatekeeper))
    found = reader.read(0.2).state
    assert found is not None
    assert (found.active_release, {A, B}) == (B, set(found.releases.values()))
