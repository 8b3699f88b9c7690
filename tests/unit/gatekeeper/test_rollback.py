"""A rollback is one new epoch that points at an earlier release, whoever asks for it and whatever else is going on."""

from __future__ import annotations

from services.gatekeeper.core.state import Returning
from tests.histories.script import BOOT, GOOD, NEWER, History

QUICK = {"ramp": {"min_step_s": 5}, "promote": {"bake_s": 10}}


def promoted(policy: dict[str, object] | None = None) -> History:
    history = History({**QUICK, **(policy or {})}).begin()
    history.warm()
    history.to_promoted()
    return history


def twice_promoted() -> History:
    history = promoted()
    history.tick(11)
    history.applied()
    history.warm()
    history.to_promoted(NEWER, parent=GOOD)
    return history


def test_an_operator_rolls_back_in_one_decision() -> None:
    history = promoted()
    count = len(history.decisions)
    history.order("rollback")
    assert len(history.decisions) == count + 1
    state = history.routing
    assert history.last.kind == "rollback"
    assert state.active == "blue"
    assert state.active_release == BOOT
    assert state.revoked == (GOOD,)
    assert state.previous is None


def test_the_release_before_the_target_becomes_previous() -> None:
    history = twice_promoted()
    history.order("rollback")
    assert history.routing.active_release == GOOD
    assert history.routing.previous == BOOT


def test_a_release_further_back_is_prepared_first_and_then_restored() -> None:
    history = twice_promoted()
    assert BOOT not in history.routing.resident
    for slot in ("blue", "green"):
        history.ready(slot, GOOD, NEWER)  # type: ignore[arg-type]
    history.order("rollback", release=BOOT)
    assert (history.last.kind, history.last.reason) == ("stage", "rollback_target")
    assert history.routing.active_release == NEWER, "the active release answers until the target is ready"
    assert isinstance(history.state.stage, Returning)
    history.prepare(BOOT)
    assert history.last.kind == "rollback"
    assert history.routing.active_release == BOOT
    assert history.routing.previous is None


def test_a_target_that_does_not_get_ready_leaves_everything_as_it_is() -> None:
    history = twice_promoted()
    for slot in ("blue", "green"):
        history.ready(slot, GOOD, NEWER)  # type: ignore[arg-type]
    history.order("rollback", release=BOOT)
    history.tick(301)
    assert (history.last.kind, history.last.reason) == ("abort", "rollback_target_not_ready")
    assert history.routing.active_release == NEWER
    assert history.routing.releases[history.routing.shadow] == GOOD


def test_an_error_rate_above_the_limit_rolls_back_by_itself() -> None:
    history = promoted()
    for _ in range(30):
        history.window(active=200, active_errors=80)
    assert (history.last.kind, history.last.reason) == ("rollback", "error")
    assert history.routing.active_release == BOOT


def test_slow_answers_roll_back_by_themselves() -> None:
    history = promoted({"promote": {"bake_s": 600}})
    for _ in range(30):
        history.window(active=200, active_ms=2500.0)
    assert (history.last.kind, history.last.reason) == ("rollback", "p95")


def test_a_toxicity_spike_rolls_back_by_itself_long_after_the_bake() -> None:
    history = promoted()
    history.tick(11)
    assert history.last.kind == "bake_end"
    for _ in range(30):
        history.window(active=200, active_toxic=60)
    assert (history.last.kind, history.last.reason) == ("rollback", "toxicity")


def test_a_healthy_release_is_left_alone() -> None:
    history = promoted()
    for _ in range(60):
        history.window(active=200, active_errors=10)
    assert "rollback" not in history.kinds


def test_windows_of_the_release_before_do_not_speak_against_the_new_one() -> None:
    history = promoted()
    old = history.routing.epoch - 1
    for _ in range(30):
        history.window(active=200, active_errors=200, epoch=old)
    assert "rollback" not in history.kinds


def test_a_second_automatic_rollback_waits_so_that_an_outage_does_not_eat_the_history() -> None:
    history = twice_promoted()
    for _ in range(60):
        history.window(active=200, active_errors=100)
    assert history.kinds.count("rollback") == 1
    assert history.routing.active_release == GOOD
    assert "no second automatic rollback" in history.progress[-1].line


def test_a_running_canary_ends_in_the_same_write() -> None:
    history = promoted()
    history.tick(11)
    history.to_canary(NEWER, parent=GOOD)
    assert history.routing.canary is not None
    count = len(history.decisions)
    history.order("rollback")
    assert len(history.decisions) == count + 1
    assert history.routing.canary is None
    assert history.routing.active_release == BOOT
    assert history.last.evidence["ended_candidate"] == NEWER


def test_nothing_to_roll_back_to_is_said_once_and_refused_when_ordered() -> None:
    history = History().begin()
    for _ in range(40):
        history.window(active=200, active_errors=150)
    alarms = [progress for progress in history.progress if "cannot roll back" in progress.line]
    assert len(alarms) == 1
    history.order("rollback")
    assert history.audits[-1][1] == "refused"
    assert history.kinds == ["genesis"]


def test_a_release_that_never_served_or_is_revoked_is_no_target() -> None:
    history = promoted()
    history.order("rollback", release=NEWER)
    assert "never served" in history.audits[-1][2]
    history.order("rollback")
    history.order("rollback", release=GOOD)
    assert "revoked" in history.audits[-1][2]
