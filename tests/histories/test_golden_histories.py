"""Kept histories lead to the same decisions as on the day they were kept, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.decisions import Decision
from schemas.gate_inputs import GateInput
from services.gatekeeper.core.effects import PublishDecision, PublishProgress
from services.gatekeeper.core.fold import fold
from services.gatekeeper.core.state import JudgeState, from_plain, to_plain
from services.gatekeeper.core.turn import decision_digest
from services.gatekeeper.replay import derive, replay
from tests.histories.generate import FOLDER, HISTORIES
from twinloop.canonical import canonical_json
from twinloop.signing import KeyRing, Signer, create_keys, load_signer, sign_document, verify_document

NAMES = sorted(HISTORIES)
ENDS = {
    "ab_test_of_two_releases": "ab_end:ab_finished",
    "ab_test_that_harms": "ab_end:early_stop",
    "blocked_by_fixed_n_tests": "abort:fixed_n",
    "cleared_by_fixed_n_tests": "promote:all_gates_cleared",
    "failed_examination": "reject:qa_pass_rate",
    "silent_examination": "reject:qa_pass_rate",
    "silent_workers": "reject:not_ready",
    "abort_by_error_margin": "abort:error_margin",
    "abort_by_early_stop": "abort:early_stop",
    "abort_by_p95": "abort:p95",
    "abort_by_toxicity": "abort:toxicity",
    "abort_by_one_domain": "abort:domain:med",
    "inconclusive_by_traffic": "abort:inconclusive",
    "inconclusive_by_time": "abort:inconclusive",
    "silent_shadow": "abort:error_margin",
    "shadow_that_answers_nothing": "abort:silent_shadow",
    "silent_active": "abort:coverage",
    "no_active_traffic": "abort:srm",
    "latencies_that_are_no_numbers": "abort:coverage",
    "labels_that_are_missing": "abort:coverage",
    "topic_that_went_silent": "abort:stale",
    "outgoing_release_is_broken": "abort:outgoing_incomplete",
    "dry_run": "abort:dry_run",
    "paused_canary": "promote:all_gates_cleared",
    "approved_by_a_person": "promote:all_gates_cleared",
    "changed_classifier": "promote:all_gates_cleared",
    "forced_by_two_people": "promote:manual",
    "manual_rollback": "rollback:manual",
    "rollback_in_steady": "rollback:p95",
    "mirror_then_canary_then_promote": "bake_end:bake_over",
    "mirror_aborted_by_harm": "abort:mirror:early_stop",
    "mirror_that_stays_silent": "abort:mirror:silent",
    "mirror_without_copies": "abort:mirror:no_copies",
    "mirror_with_poor_coverage": "abort:mirror:coverage",
    "regression_in_bake": "rollback:bake:error_margin",
    "ratings_guardrail": "abort:ratings",
    "suspicious_ratings_hold": "abort:inconclusive",
}
"""How a history ends, for people: the bytes say it too."""
HELD_FIRST = (
    "shadow_that_answers_nothing",
    "no_active_traffic",
    "silent_active",
    "latencies_that_are_no_numbers",
    "labels_that_are_missing",
    "topic_that_went_silent",
    "mirror_that_stays_silent",
    "mirror_without_copies",
    "mirror_with_poor_coverage",
)


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


@pytest.mark.parametrize("name", sorted(ENDS))
def test_a_kept_history_ends_as_its_name_says(name: str) -> None:
    last = Decision.model_validate_json(decisions(name)[-1])
    assert f"{last.kind}:{last.reason}" == ENDS[name]


@pytest.mark.parametrize("name", HELD_FIRST)
def test_silence_is_held_and_said_before_it_aborts(name: str) -> None:
    """Between the canary's start and its abort somebody was told why nothing goes on."""
    state, told = JudgeState(), []
    for offset, record in inputs(name):
        state, effects = fold(state, record, offset)
        told += [effect.progress.line for effect in effects if isinstance(effect, PublishProgress)]
    why = {
        "topic_that_went_silent": "no window with traffic",
        "shadow_that_answers_nothing": "the shadow answered none of its queries",
        "no_active_traffic": "split of keys is wrong",
        "mirror_that_stays_silent": "the shadow answers no copy",
        "mirror_without_copies": "no copy yet",
        "mirror_with_poor_coverage": "copies back (70.0%)",
    }.get(name, "data carry outcome, latency and label")
    assert any(why in line for line in told)


def test_evidence_has_each_arm_s_interval_where_the_policy_asks_for_it_and_is_else_the_same() -> None:
    def gates(name: str) -> list[dict[str, Any]]:
        promoted = next(d for d in map(Decision.model_validate_json, decisions(name)) if d.kind == "promote")
        return promoted.evidence["verdict"]["gates"]  # type: ignore[call-overload,index,return-value]

    told = gates("promote_with_intervals")
    for gate in told:
        low, high = gate.pop("ci_s")
        assert low <= gate["x_s"] / gate["n_s"] <= high
        assert (gate.pop("ci_a", None) is not None) == (gate["n_a"] > 0)
    assert told == gates("promote_and_bake")


def test_a_spared_domain_is_named_beside_the_harmed_one() -> None:
    last = Decision.model_validate_json(decisions("abort_by_one_domain")[-1])
    assert last.evidence["failed_domains"] == ["med"]
    assert last.evidence["spared_domains"] == ["law", "fin", "gen"]
    assert last.evidence["feedback"] == "quarantine_domains"


def test_a_second_key_in_the_same_hands_forces_nothing() -> None:
    kinds = [Decision.model_validate_json(line).kind for line in decisions("forced_by_two_people")]
    assert kinds.count("promote") == 1


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


def test_a_decision_made_while_the_log_was_read_is_no_mismatch_and_an_older_one_that_is_missing_is() -> None:
    known = inputs("manual_rollback")
    found = list(derive(known))
    last = found[-1]
    assert replay(known, found[:-1], settled=last.input_offset).mismatches == ()
    assert replay(known, found[:-1], settled=last.input_offset + 1).mismatches == (
        f"epoch {last.epoch}: derived, but not logged",
    )
    assert replay(known, found, settled=0).mismatches == ()
