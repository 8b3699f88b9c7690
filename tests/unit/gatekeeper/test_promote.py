"""A candidate becomes active only through readiness, examination, canary and the outgoing release's blob check."""

from __future__ import annotations

from services.gatekeeper.core.effects import CheckBlobs, SendProbes
from services.gatekeeper.core.fold import duties
from services.gatekeeper.core.state import CanaryRun, Preparing
from tests.histories.script import BOOT, GOOD, INCARNATION, NEWER, History
from twinloop.canonical import sha256_hex

RAMP = {"ramp": {"min_step_s": 5}}


def test_a_good_candidate_goes_through_every_stage_in_order() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    assert history.kinds == ["genesis", "stage", "canary", "ramp", "ramp", "promote"]
    assert [decision.epoch for decision in history.decisions] == [1, 2, 3, 4, 5, 6]


def test_a_promote_flips_the_active_slot_and_keeps_the_outgoing_release() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    state = history.routing
    assert state.active == "green"
    assert state.releases == {"blue": BOOT, "green": GOOD}
    assert state.previous == BOOT
    assert state.canary is None
    assert state.phase == "bake"


def test_the_salt_is_that_of_the_epoch_the_canary_starts_with_and_stays_while_it_grows() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    started = history.last
    assert started.state.canary is not None
    assert started.state.canary.salt == sha256_hex(f"{INCARNATION}:{started.epoch}".encode())
    history.traffic(10)
    grown = next(decision for decision in history.decisions if decision.kind == "ramp")
    assert grown.state.canary is not None
    assert grown.state.canary.salt == started.state.canary.salt
    assert grown.state.canary.basis_points == 500


def test_no_promote_happens_before_the_blob_check_answers() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    history.traffic(60)
    stage = history.state.stage
    assert isinstance(stage, CanaryRun)
    assert stage.checking_since is not None
    assert "promote" not in history.kinds
    assert duties(history.state) == (CheckBlobs(BOOT, history.routing.epoch),)


def test_a_missing_blob_of_the_outgoing_release_forbids_the_promote() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    for _ in range(100):
        history.traffic(1)
        if getattr(history.state.stage, "checking_since", None) is not None:
            break
    history.blobs(ok=False, detail="adapter law is not in the store")
    assert history.last.kind == "abort"
    assert history.last.reason == "outgoing_incomplete"
    assert history.last.evidence["feedback"] == "retrain"
    assert GOOD not in history.routing.revoked


def test_a_blob_check_without_an_answer_ends_the_canary() -> None:
    history = History({**RAMP, "promote": {"blob_check_timeout_s": 3}}).begin()
    history.warm()
    history.to_canary()
    history.traffic(200)
    assert history.last.kind == "abort"
    assert history.last.reason == "outgoing_incomplete"


def test_evidence_that_decayed_while_the_blobs_were_read_does_not_promote() -> None:
    history = History({**RAMP, "promote": {"blob_check_timeout_s": 3000}}).begin()
    history.warm()
    history.to_canary()
    for _ in range(100):
        history.traffic(1)
        if getattr(history.state.stage, "checking_since", None) is not None:
            break
    history.traffic(2, shadow_rate=0.15)
    if history.last.kind != "abort":
        history.blobs()
    assert "promote" not in history.kinds


def test_an_approver_is_waited_for_where_the_policy_says_so() -> None:
    history = History({**RAMP, "promote": {"mode": "approval"}}).begin()
    history.warm()
    history.to_canary()
    history.traffic(60)
    assert "promote" not in history.kinds
    assert any("an approver" in progress.needed for progress in history.progress)
    history.order("approve")
    history.traffic(2)
    history.blobs()
    assert history.last.kind == "promote"
    assert history.last.evidence["approved_by"] == "ada"


def test_a_dry_run_says_what_it_would_do_and_does_not() -> None:
    history = History({**RAMP, "promote": {"mode": "dry_run"}}).begin()
    history.warm()
    history.to_canary()
    history.traffic(100)
    assert history.last.kind == "abort"
    assert history.last.reason == "dry_run"
    assert history.last.line.startswith(f"abort {GOOD[:8]}: would be promoted")


def test_a_forced_promote_skips_the_gates_but_never_the_blob_check() -> None:
    history = History().begin()
    history.to_canary()
    history.order("promote")
    assert "promote" not in history.kinds
    history.blobs()
    assert history.last.kind == "promote"
    assert history.last.reason == "manual"


def test_a_forced_promote_may_skip_the_examination_of_a_prepared_candidate() -> None:
    history = History().begin()
    history.propose()
    history.prepare()
    history.order("promote", release=GOOD)
    assert history.last.kind == "stage"
    history.blobs()
    assert history.last.kind == "promote"
    assert history.routing.active_release == GOOD


def test_a_forced_promote_of_an_unprepared_candidate_is_refused() -> None:
    history = History().begin()
    history.propose()
    history.order("promote")
    assert history.audits[-1][1] == "refused"
    assert isinstance(history.state.stage, Preparing)


def test_the_bake_ends_in_steady_and_the_next_candidate_may_come() -> None:
    history = History({**RAMP, "promote": {"bake_s": 10}}).begin()
    history.warm()
    history.to_promoted()
    history.propose(NEWER, parent=GOOD)
    assert history.last.kind == "promote", "nothing is staged during the bake"
    history.tick(11)
    assert history.kinds[-2:] == ["bake_end", "stage"]
    assert history.last.release == NEWER
    assert history.routing.releases["blue"] == NEWER


def test_the_line_of_a_promote_names_value_sign_and_threshold() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    line = history.last.line
    for part in ("error", "p95", "toxicity", "<=", ">= 20", "n="):
        assert part in line


def test_a_jump_grows_the_share_at_once_and_never_shrinks_it() -> None:
    history = History().begin()
    history.to_canary()
    history.order("jump", parameters={"basis_points": 800})
    assert history.last.kind == "ramp"
    assert history.routing.canary is not None
    assert history.routing.canary.basis_points == 800
    history.order("jump", parameters={"basis_points": 200})
    assert history.audits[-1][1] == "refused"


def test_the_probes_are_a_duty_until_the_examination_ends() -> None:
    history = History().begin()
    history.propose()
    history.prepare()
    duty = duties(history.state)
    assert duty == (
        SendProbes(run=f"qa-{INCARNATION[:8]}-2", candidate=GOOD, slot="green", epoch=2, paired=False),
    )
    history.examine()
    assert duties(history.state) == ()
