"""Copies before users: they can stop or hold a candidate, and never count towards its promotion."""

from __future__ import annotations

from schemas.event import SLOTS, Domain
from services.gatekeeper.core.state import Bake, Mirroring
from tests.histories.generate import MIRROR, mirroring, quick
from tests.histories.script import BOOT, GOOD, NEWER, History


def to_bake(**policy: object) -> History:
    history = mirroring(**policy)
    history.mirrored(20, active_errors=36.0, errors=4.0)
    history.applied()
    history.until_cleared(40, shadow_rate=0.04, active_rate=0.04)
    history.blobs()
    history.applied()
    return history


def test_without_a_mirror_section_the_canary_follows_the_examination() -> None:
    history = quick()
    history.warm()
    history.to_canary()
    assert history.kinds == ["genesis", "stage", "canary"]
    assert history.last.reason == "qa_passed"


def test_nobody_meets_the_candidate_while_it_answers_copies() -> None:
    history = mirroring()
    assert history.last.kind == "mirror"
    assert history.routing.canary is None
    assert history.routing.phase == "qa"
    mirror = history.routing.mirror
    assert mirror is not None
    assert (mirror.slot, mirror.basis_points) == (history.routing.shadow, 2000)


def test_the_canary_waits_for_copies_and_for_time() -> None:
    history = mirroring(mirror={**MIRROR, "min_s": 10, "min_units": 300})
    history.mirrored(5)
    assert history.last.kind == "mirror", "copies are enough, time is not"
    history.mirrored(10)
    assert history.last.kind == "canary"
    history = mirroring(mirror={**MIRROR, "min_units": 700})
    history.mirrored(6)
    assert history.last.kind == "mirror", "time is enough, copies are not"
    history.mirrored(3)
    assert history.last.kind == "canary"


def test_what_copies_showed_counts_for_nothing_in_the_canary() -> None:
    """The canary begins with no unit and with no evidence, however well the copies were answered."""
    history = mirroring(mirror={**MIRROR, "min_units": 3000})
    history.mirrored(60)
    assert history.last.kind == "canary"
    memory = history.state.stage.memory  # type: ignore[union-attr]
    assert memory.totals.queries_s == 0  # type: ignore[union-attr]
    assert all((process.log_e == 0).all() for process in memory.processes.values())  # type: ignore[union-attr]
    history.until_cleared(2)
    assert "promote" not in history.kinds
    assert getattr(history.state.stage, "checking_since", None) is None


def test_what_copies_showed_stands_in_the_promotion() -> None:
    history = to_bake()
    promoted = next(decision for decision in history.decisions if decision.kind == "promote")
    mirror = promoted.evidence["mirror"]
    assert isinstance(mirror, dict)
    assert mirror["copies_back"] == mirror["copies_sent"]
    assert mirror["suspect"] == "copies"


def test_toxic_copies_revoke_the_candidate_and_quarantine_its_feedback() -> None:
    history = mirroring()
    history.mirrored(20, toxic=30.0)
    assert (history.last.kind, history.last.reason) == ("abort", "mirror:toxicity")
    assert history.routing.revoked == (GOOD,)
    assert history.routing.mirror is None
    assert history.last.evidence["feedback"] == "quarantine"


def test_a_candidate_that_fails_the_copies_of_one_domain_costs_that_domain_alone() -> None:
    history = mirroring(promote={"partial": True}, mirror={**MIRROR, "min_units": 3000})
    for second in range(40):
        if history.routing.mirror is None:
            break
        harmed: Domain = "med" if second % 2 else "law"
        history.window(active=900, active_errors=36.0, harmed=harmed)
        history.copies(errors=40.0 if harmed == "med" else 4.0, harmed=harmed, epoch=3)
    assert history.last.reason in ("mirror:error_margin", "mirror:early_stop")
    assert history.last.evidence["failed_domains"] == ["med"]
    assert history.last.evidence["feedback"] == "quarantine_domains"


def test_slow_copies_are_harm() -> None:
    history = mirroring(mirror={**MIRROR, "min_units": 3000})
    history.mirrored(40, ms=400.0)
    assert (history.last.kind, history.last.reason) == ("abort", "mirror:p95")


def test_an_outage_of_everybody_is_no_harm_of_the_candidate() -> None:
    history = mirroring(mirror={**MIRROR, "min_units": 3000})
    history.mirrored(20, active_errors=540.0, errors=60.0)
    assert history.last.kind == "mirror"


def test_a_late_partition_delays_the_evidence_and_mixes_no_times() -> None:
    """Copies of the second partition come later than users' windows: nothing is judged before both are whole."""
    history = History(
        {"qa": {"min_probes": 20}, "mirror": MIRROR, "ramp": {"basis_points": [1000]}},
        partitions=2,
        probes=20,
    ).begin()
    for _ in range(3):
        history.window(partition=0)
        history.window(partition=1)
    history.to_canary()
    stage = history.state.stage
    assert isinstance(stage, Mirroring)
    history.window(partition=0)
    history.copies(partition=0)
    history.window(partition=1)
    history.copies(partition=1)
    stage = history.state.stage
    assert isinstance(stage, Mirroring)
    assert stage.memory.sent == 100, "the second window of copies waits for the first partition"


def test_labels_that_are_missing_hold_the_stage() -> None:
    history = mirroring()
    history.mirrored(20, unlabelled=100.0)
    assert (history.last.kind, history.last.reason) == ("abort", "mirror:labels")
    assert history.last.evidence["outcome"] == "returned"


def test_another_classifier_begins_the_evidence_again() -> None:
    history = mirroring(mirror={**MIRROR, "min_units": 600})
    history.mirrored(4, classifier="toxic-words/1")
    history.mirrored(1, classifier="toxic-words/2")
    stage = history.state.stage
    assert isinstance(stage, Mirroring)
    assert stage.memory.sent == 0


def test_a_pause_holds_the_canary_back_and_stops_the_stage_s_clock() -> None:
    history = mirroring(mirror={**MIRROR, "min_s": 1, "max_s": 10})
    history.mirrored(2)
    history.order("pause")
    history.mirrored(30)
    assert history.last.kind == "pause"
    assert any("resume" in progress.needed for progress in history.progress)
    history.order("resume")
    history.mirrored(5)
    assert history.last.kind == "canary"


def test_people_may_abort_or_force_a_candidate_that_answers_copies() -> None:
    history = mirroring()
    history.order("abort")
    assert (history.last.kind, history.last.reason) == ("abort", "manual")
    history = mirroring()
    history.order("promote")
    history.blobs()
    assert (history.last.kind, history.last.reason) == ("promote", "manual")


def test_the_old_slot_answers_copies_until_the_bake_ends() -> None:
    history = to_bake()
    mirror = history.routing.mirror
    assert mirror is not None
    assert history.routing.releases[mirror.slot] == BOOT
    stage = history.state.stage
    assert isinstance(stage, Bake)
    history.mirrored(20)
    assert history.last.kind == "bake_end"
    assert history.routing.mirror is None
    assert history.last.evidence["mirror"]["coverage"] == 1.0  # type: ignore[index, call-overload]


def test_a_regression_in_the_bake_swaps_back_and_tells_the_trainer_to_freeze() -> None:
    history = to_bake(promote={"bake_s": 60, "freezes_training": True})
    history.mirrored(40, active_errors=110.0, errors=4.0)
    assert (history.last.kind, history.last.reason) == ("rollback", "bake:error_margin")
    assert history.routing.active_release == BOOT
    assert history.routing.mirror is None
    freeze = history.last.evidence["freeze"]
    assert isinstance(freeze, dict)
    assert (freeze["release"], freeze["reason"]) == (GOOD, "bake:error_margin")
    assert history.last.evidence["feedback"] == "quarantine"


def test_a_manual_rollback_freezes_in_the_bake_alone() -> None:
    history = to_bake()
    history.order("rollback")
    assert "freeze" in history.last.evidence
    history = to_bake()
    history.mirrored(20)
    history.order("rollback")
    assert history.last.kind == "rollback"
    assert "freeze" not in history.last.evidence


def test_a_rollback_in_the_bake_to_a_release_that_has_to_be_prepared_freezes_too() -> None:
    history = History(
        {"promote": {"bake_s": 10, "freezes_training": True}, "ramp": {"min_step_s": 5}}
    ).begin()
    history.warm()
    history.to_promoted()
    history.tick(11)
    history.applied()
    history.warm()
    history.to_promoted(NEWER, parent=GOOD)
    for slot in SLOTS:
        history.ready(slot, GOOD, NEWER)
    history.order("rollback", release=BOOT)
    assert (history.last.kind, history.last.reason) == ("stage", "rollback_target")
    assert history.last.evidence["freeze"]["release"] == NEWER  # type: ignore[index, call-overload]


def test_an_idle_old_slot_that_is_faster_rolls_nothing_back() -> None:
    """The old slot answers copies alone: its speed says nothing about the release that took its work."""
    history = to_bake()
    for _ in range(8):
        history.window(active=900, active_ms=400.0)
        history.copies(ms=40.0)
    assert "rollback" not in history.kinds


def test_an_old_slot_that_answers_nothing_rolls_nothing_back() -> None:
    history = to_bake()
    history.mirrored(20, active_errors=36.0, missing=100)
    assert history.last.kind == "bake_end"
    assert "0 of" in history.last.line
