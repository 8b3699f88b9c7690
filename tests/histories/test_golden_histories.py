"""Kept histories lead to the same decisions as on the day they were kept, byte for byte."""

from __future__ import annotations

import json

import pytest

from schemas.decisions import Decision
from schemas.gate_inputs import GateInput
from services.gatekeeper.core.effects import PublishDecision
from services.gatekeeper.core.fold import fold
from services.gatekeeper.core.state import JudgeState, from_plain, to_plain
from services.gatekeeper.core.turn import decision_digest
from services.gatekeeper.replay import derive, replay
from tests.histories.generate import FOLDER, HISTORIES
from twinloop.canonical import canonical_json
from twinloop.signing import KeyRing, Signer, create_keys, load_signer, sign_document, verify_document

NAMES = sorted(HISTORIES)


def inputs(name: str) -> list[tuple[int, GateInput]]:
    lines = (FOLDER / f"{name}.inputs.jsonl").read_bytes().splitlines()
    return [(offset, GateInput.model_validate_json(line)) for offset, line in enumerate(lines)]


def decisions(name: str) -> list[bytes]:
    return (FOLDER / f"{name}.decisions.jsonl").read_bytes().splitlines()


def test_every_kept_file_belongs_to_a_history() -> None:
    kept = {path.name.split(".")[0] for path in FOLDER.glob("*.jsonl")}
    assert kept == set(HISTORIES)


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_history_replays_to_the_same_bytes(name: str) -> None:
    assert [canonical_json(decision) for decision in derive(inputs(name))] == decisions(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_decisions_are_a_hash_chain_of_rising_epochs(name: str) -> None:
    before, epoch = None, 0
    for line in decisions(name):
        decision = Decision.model_validate_json(line)
        assert decision.previous == before
        assert decision.epoch > epoch
        before, epoch = decision_digest(decision), decision.epoch


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_anywhere_leads_to_the_same_decisions(name: str) -> None:
    """The state goes through JSON at every tenth record and folds on from there."""
    state, derived = JudgeState(), []
    for offset, record in inputs(name):
        state, effects = fold(state, record, offset)
        derived += [effect.decision for effect in effects if isinstance(effect, PublishDecision)]
        if offset % 10 == 0:
            state = from_plain(json.loads(canonical_json(to_plain(state))))
    assert [canonical_json(decision) for decision in derived] == decisions(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_record_folded_twice_changes_nothing(name: str) -> None:
    state, derived = JudgeState(), []
    for offset, record in inputs(name):
        for _ in range(2):
            state, effects = fold(state, record, offset)
            derived += [effect.decision for effect in effects if isinstance(effect, PublishDecision)]
    assert [canonical_json(decision) for decision in derived] == decisions(name)


@pytest.fixture(scope="module")
def signer_and_ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, KeyRing]:
    folder = tmp_path_factory.mktemp("keys")
    ring = KeyRing.load(create_keys(folder, {"gatekeeper-1": ("gatekeeper",)}))
    return load_signer(folder, "gatekeeper-1"), ring


def test_signed_decisions_verify_and_match_their_replay(signer_and_ring: tuple[Signer, KeyRing]) -> None:
    signer, ring = signer_and_ring
    logged = []
    for decision in derive(inputs("promote_and_bake")):
        signed = decision.model_copy(update={"state": sign_document(decision.state, signer)})
        verify_document(signed.state, ring, role="gatekeeper")
        logged.append(signed)
    assert replay(inputs("promote_and_bake"), logged).mismatches == ()


def test_a_changed_log_is_named_by_epoch_and_field() -> None:
    logged = list(derive(inputs("harmful_canary")))
    logged[2] = logged[2].model_copy(update={"reason": "because"})
    assert replay(inputs("harmful_canary"), logged).mismatches == ("epoch 3: reason differ",)


def test_of_two_records_of_an_epoch_the_first_one_counts() -> None:
    logged = list(derive(inputs("harmful_canary")))
    second = logged[2].model_copy(update={"reason": "because"})
    assert replay(inputs("harmful_canary"), [*logged, second]).mismatches == ()
