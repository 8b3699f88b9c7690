"""Pausing holds what would move forward, never what protects users."""

from __future__ import annotations

from tests.histories.script import GOOD, NEWER, History

RAMP = {"ramp": {"min_step_s": 5}}


def test_nothing_is_staged_while_paused() -> None:
    history = History().begin()
    history.order("pause")
    history.propose()
    assert history.kinds == ["genesis", "pause"]
    history.order("resume")
    assert history.kinds == ["genesis", "pause", "resume", "stage"]


def test_a_paused_canary_neither_grows_nor_is_promoted() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    history.order("pause")
    history.traffic(80)
    assert history.kinds[-1] == "pause"
    assert "paused" in history.progress[-1].line


def test_a_paused_canary_still_aborts() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    history.order("pause")
    history.traffic(200, shadow_rate=0.5)
    assert history.last.kind == "abort"


def test_a_paused_gatekeeper_still_rolls_back() -> None:
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    history.order("pause")
    for _ in range(30):
        history.window(active=200, active_errors=100)
    assert history.last.kind == "rollback"


def test_a_pause_does_not_age_the_canary() -> None:
    policy = {**RAMP, "canary": {"max_duration_s": 100, "stale_ttl_s": 50, "invalid_ttl_s": 60}}
    history = History(policy).begin()
    history.warm()
    history.to_canary()
    history.order("pause")
    for _ in range(40):
        history.tick(10)
    history.order("resume")
    history.tick(1)
    assert history.last.kind == "resume", "neither stale nor overdue"


def test_pausing_twice_is_refused() -> None:
    history = History().begin()
    history.order("pause")
    history.order("pause")
    assert history.audits[-1][1] == "refused"


def test_a_new_policy_waits_for_the_end_of_the_stage() -> None:
    history = History(RAMP).begin()
    history.to_canary()
    first = history.last.policy
    changed = History({**RAMP, "promote": {"bake_s": 7}})
    from services.gatekeeper.core.policy import policy_change

    history.write(policy_change(changed.policy, software="0.1.0", origin_partitions=1))
    history.order("jump", parameters={"basis_points": 300})
    assert history.last.policy == first
    history.order("abort")
    assert history.last.policy == first
    history.propose(NEWER)
    assert history.last.policy == changed.policy.digest
    assert history.last.release != GOOD
