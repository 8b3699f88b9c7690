"""An A/B test compares two releases that served, reports both ways, and changes nothing for good."""

from __future__ import annotations

import pytest

from services.gatekeeper.core.state import AbTest
from tests.histories.script import BOOT, GOOD, NEWER, History
from twinloop.routing.assignment import assign

RAMP = {"ramp": {"min_step_s": 5}, "promote": {"bake_s": 10}}


def after_a_promote() -> History:
    """GOOD serves in peace, BOOT stands beside it."""
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    history.tick(11)
    history.warm()
    history.prepare()
    return history


def started(**parameters: object) -> History:
    history = after_a_promote()
    history.order("ab_start", parameters=parameters)
    history.applied()
    return history


def test_users_are_shared_by_subject_between_active_and_previous() -> None:
    history = started(basis_points=1000, units=600)
    assert history.last.kind == "ab_start"
    assert history.last.evidence["command"] == history.audits[-1][2].rsplit("[", 1)[1].rstrip("]")
    routing = history.routing
    assert (routing.active_release, routing.shadow_release) == (GOOD, BOOT)
    assert routing.phase == "canary"
    places = [assign(routing, f"user-{number}").release for number in range(4000)]
    assert 0.08 < places.count(BOOT) / len(places) < 0.12
    again = [assign(routing, f"user-{number}").release for number in range(4000)]
    assert again == places


def test_it_ends_at_the_size_that_was_fixed_with_both_reports() -> None:
    history = started(basis_points=1000, units=600)
    history.traffic(60, shadow_rate=0.03, active_rate=0.02)
    end = history.last
    assert (end.kind, end.reason, end.release) == ("ab_end", "ab_finished", BOOT)
    assert end.evidence["units_reached"] is True
    fixed_n = end.evidence["fixed_n"]
    assert isinstance(fixed_n, dict)
    assert fixed_n["label"] == "not used for the decision"
    assert (fixed_n["n_s"], fixed_n["x_s"], fixed_n["n_a"], fixed_n["x_a"]) == (600, 18, 5400, 108)
    verdict = end.evidence["verdict"]
    assert isinstance(verdict, dict)
    assert {gate["name"] for gate in verdict["gates"]} >= {"error_margin", "p95", "toxicity"}  # type: ignore[index,union-attr,call-overload]
    assert "Fisher" in end.line


def test_nothing_is_promoted_revoked_or_kept_on_a_share() -> None:
    history = started(units=300)
    before = history.decisions[-2].state
    history.traffic(60)
    after = history.routing
    assert (after.active, after.releases, after.previous) == (before.active, before.releases, before.previous)
    assert after.canary is None
    assert after.revoked == ()
    assert after.phase == "steady"


def test_a_release_that_harms_its_users_is_taken_off_early_and_can_still_be_rolled_back_to() -> None:
    history = started(basis_points=500, units=5000)
    history.traffic(200, shadow_rate=0.33, active_rate=0.02)
    assert history.last.kind == "ab_end"
    assert history.last.reason in ("early_stop", "error_margin")
    assert history.last.evidence["units_reached"] is False
    history.order("rollback")
    assert history.routing.active_release == BOOT


def test_progress_is_told_while_it_runs() -> None:
    history = started(units=5000)
    told = len(history.progress)
    history.traffic(20)
    lines = [each.line for each in history.progress[told:]]
    assert len(lines) >= 3
    assert all(line.startswith("A/B ") and "of 5000 units" in line for line in lines)


def test_a_candidate_waits_until_it_is_over() -> None:
    history = started(units=300)
    history.propose(NEWER, parent=GOOD)
    assert history.last.kind == "ab_start"
    history.traffic(60)
    assert [decision.kind for decision in history.decisions[-2:]] == ["ab_end", "stage"]


@pytest.mark.parametrize("action", ["ab_stop", "abort"])
def test_a_person_may_end_it(action: str) -> None:
    history = started()
    history.traffic(5)
    history.order(action)  # type: ignore[arg-type]
    assert (history.last.kind, history.last.reason) == ("ab_end", "manual")


def test_an_order_to_stop_it_ends_nothing_else() -> None:
    history = History(RAMP).begin()
    history.to_canary()
    history.order("ab_stop")
    assert history.audits[-1][1:] == ("refused", "no A/B test is running [nonce-1]")
    assert history.last.kind == "canary"


def test_a_rollback_ends_it_in_the_same_write() -> None:
    history = started()
    history.traffic(5)
    history.order("rollback")
    assert history.last.kind == "rollback"
    assert history.routing.canary is None
    assert history.state.stage is None


def test_nobody_watching_ends_it() -> None:
    history = started()
    history.traffic(5)
    history.tick(60)
    assert (history.last.kind, history.last.reason) == ("ab_end", "unwatched")


def test_silence_of_the_other_release_ends_it_with_that_reason() -> None:
    history = History(
        {**RAMP, "canary": {"silent_shadow": "hold", "stale_ttl_s": 5}, "watch": {"max_gap_s": 30}}
    ).begin()
    history.warm()
    history.to_promoted()
    history.tick(11)
    history.warm()
    history.prepare()
    history.order("ab_start", parameters={"basis_points": 1000})
    for _ in range(20):
        if history.last.kind == "ab_start":
            history.window(shadow=100, active=900, shadow_errors=100, shadow_missing=100)
    assert (history.last.kind, history.last.reason) == ("ab_end", "silent_shadow")


def test_a_new_classifier_ends_it() -> None:
    history = started()
    history.traffic(3, classifier="rules 1")
    history.traffic(3, classifier="rules 2")
    assert (history.last.kind, history.last.reason) == ("ab_end", "classifier_changed")


def test_too_few_users_end_it_by_time() -> None:
    history = History({**RAMP, "canary": {"max_duration_s": 60}}).begin()
    history.warm()
    history.to_promoted()
    history.tick(11)
    history.warm()
    history.prepare()
    history.order("ab_start", parameters={"basis_points": 10, "units": 20_000})
    history.traffic(80)
    assert (history.last.kind, history.last.reason) == ("ab_end", "ab_timeout")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"basis_points": 5000}, "basis_points"),
        ({"basis_points": 0}, "basis_points"),
        ({"basis_points": True}, "basis_points"),
        ({"units": 10}, "units"),
        ({"units": 1_000_000}, "units"),
        ({"units": "many"}, "units"),
    ],
)
def test_an_impossible_size_is_refused(parameters: dict[str, object], named: str) -> None:
    history = started(**parameters)
    assert history.audits[-1][1] == "refused"
    assert named in history.audits[-1][2]
    assert history.last.kind == "bake_end"


def test_only_a_healthy_release_that_served_may_be_compared() -> None:
    first = History(RAMP).begin()
    for slot in ("blue", "green"):
        first.ready(slot, BOOT)  # type: ignore[arg-type]
    first.order("ab_start")
    assert "nothing to compare with" in first.audits[-1][2]
    history = after_a_promote()
    history.order("ab_start", release=NEWER)
    assert "never served" in history.audits[-1][2]
    history.order("ab_start", release=GOOD)
    assert "is active already" in history.audits[-1][2]
    history.order("rollback")
    history.order("ab_start", release=GOOD)
    assert "is revoked" in history.audits[-1][2]


def test_it_waits_for_no_other_stage_and_not_for_workers() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    history.order("ab_start")
    assert "a stage is running: bake" in history.audits[-1][2]
    history.tick(40)
    history.order("ab_start")
    assert "is not ready" in history.audits[-1][2]
    history.prepare()
    history.order("pause")
    history.order("ab_start")
    assert "paused by ada" in history.audits[-1][2]
    history.order("resume")
    history.order("ab_start")
    assert isinstance(history.state.stage, AbTest)


@pytest.mark.parametrize("action", ["promote", "approve", "jump"])
def test_it_cannot_be_promoted_or_grown(action: str) -> None:
    history = started()
    history.order(action, parameters={"basis_points": 1000}, key_id="approver-1")  # type: ignore[arg-type]
    assert history.audits[-1][1] == "refused"
    assert history.last.kind == "ab_start"
