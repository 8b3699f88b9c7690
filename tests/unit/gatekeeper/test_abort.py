"""A canary that harms, cannot be judged or is not watched ends, and the active release never changes."""

from __future__ import annotations

from tests.histories.script import BOOT, GOOD, History

RAMP = {"ramp": {"min_step_s": 5}}


def running(policy: dict[str, object] | None = None) -> History:
    history = History({**RAMP, **(policy or {})}).begin()
    history.warm()
    history.to_canary()
    return history


def test_a_failing_shadow_is_stopped_and_revoked() -> None:
    history = running()
    history.traffic(200, shadow_rate=0.3, active_rate=0.04)
    assert history.last.kind == "abort"
    assert history.last.reason in ("error_margin", "early_stop")
    assert history.routing.releases == {"blue": BOOT, "green": BOOT}
    assert history.routing.canary is None
    assert history.routing.revoked == (GOOD,)
    assert history.last.evidence["feedback"] == "quarantine"


def test_an_outage_of_the_shadow_is_seen_within_a_few_windows() -> None:
    history = running()
    history.traffic(10, shadow_rate=1.0, active_rate=0.04)
    assert history.last.kind == "abort"


def test_a_slow_shadow_is_stopped() -> None:
    history = running()
    history.traffic(200, shadow_ms=400.0)
    assert (history.last.kind, history.last.reason) == ("abort", "p95")


def test_a_toxic_shadow_is_stopped() -> None:
    history = running()
    history.traffic(200, shadow_toxic=3.0)
    assert (history.last.kind, history.last.reason) == ("abort", "toxicity")


def test_equal_twins_are_not_aborted_when_both_fail() -> None:
    history = running({"rollback": {"error_max": 0.7}})
    history.traffic(40, shadow_rate=0.3, active_rate=0.3)
    assert "abort" not in history.kinds


def test_silence_never_promotes_and_ends_as_stale() -> None:
    history = running({"canary": {"stale_ttl_s": 20, "invalid_ttl_s": 30}})
    for _ in range(60):
        history.tick(1)
    assert (history.last.kind, history.last.reason) == ("abort", "stale")
    assert "promote" not in history.kinds
    assert history.routing.revoked == ()


def test_a_shadow_without_outcomes_is_stopped_not_promoted() -> None:
    history = running()
    history.traffic(50, shadow_rate=1.0)
    assert history.last.kind == "abort"
    assert "promote" not in history.kinds


def test_an_undecided_canary_ends_by_its_duration() -> None:
    history = running(
        {"canary": {"max_duration_s": 20, "min_shadow": 10_000, "ci_width": 0.0, "stale_ttl_s": 900}}
    )
    for _ in range(25):
        history.tick(1)
    assert (history.last.kind, history.last.reason) == ("abort", "inconclusive")
    assert history.last.evidence["feedback"] == "retrain"


def test_a_gap_between_ticks_ends_the_canary_as_unwatched() -> None:
    history = running()
    history.tick(31)
    assert (history.last.kind, history.last.reason) == ("abort", "unwatched")
    assert history.routing.revoked == ()


def test_the_gap_that_is_allowed_does_not_end_it() -> None:
    history = running()
    history.tick(30)
    assert history.last.kind == "canary"


def test_a_person_may_abort_with_and_without_revoking() -> None:
    kept = running()
    kept.order("abort")
    assert (kept.last.kind, kept.last.reason) == ("abort", "manual")
    assert kept.routing.revoked == ()
    gone = running()
    gone.order("abort", parameters={"revoke": True})
    assert gone.routing.revoked == (GOOD,)


def test_after_an_abort_the_shadow_slot_gets_the_previous_release_back() -> None:
    history = running()
    history.traffic(60)
    history.blobs()
    assert history.last.kind == "promote"
    history.tick(601)
    newest = "ab" * 32
    history.propose(newest, parent=GOOD)
    assert history.routing.releases["blue"] == newest
    history.order("abort")
    assert history.routing.releases == {"blue": BOOT, "green": GOOD}
    assert history.routing.previous == BOOT
