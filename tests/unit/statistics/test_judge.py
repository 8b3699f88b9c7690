"""The judge: what it says, in which order, and that silence or nonsense never promotes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from twinloop.errors import ConfigError
from twinloop.statistics import latency
from twinloop.statistics.evidence import is_error_literally_fine
from twinloop.statistics.gates import CanaryPolicy, CanaryState, Verdict, VerdictKind, advance, judge
from twinloop.statistics.tally import Arms, ArmTally, WindowTally

POLICY = CanaryPolicy(warmup_units=0)
FAST = tuple((int(i), 1.0) for i in latency.bins_of(np.linspace(50.0, 400.0, 97)))


def times(n: float, *, shift: float = 0.0) -> tuple[tuple[int, float], ...]:
    """n answers spread evenly over 50 to 400 ms."""
    bins, counts = np.unique(latency.bins_of(np.linspace(50.0, 400.0, 60) + shift), return_counts=True)
    return tuple((int(b), float(c) * n / 60.0) for b, c in zip(bins, counts, strict=True))


def arm(
    n: int, *, error: float = 0.04, toxic: float = 0.01, shift: float = 0.0, **changes: float
) -> ArmTally:
    answered = round(n * (1 - error))
    whole = ArmTally(
        queries=n,
        units=n,
        errors=float(n - answered),
        answered=answered,
        latency=times(answered, shift=shift),
        toxic=toxic * answered,
        new_keys=n,
    )
    return replace(whole, **changes)


NOTHING = ArmTally()
BASELINE = latency.dense(times(3000))


def window(number: int, shadow: ArmTally, active: ArmTally | None = None, **changes: object) -> WindowTally:
    scope = Arms(arm(900) if active is None else active, shadow)
    whole = WindowTally(float(number), number + 1.0, 1, 1000, scope)
    return replace(whole, **changes)  # type: ignore[arg-type]


def fold(
    windows: list[WindowTally], policy: CanaryPolicy = POLICY, baseline: bool = True
) -> tuple[CanaryState, list[Verdict]]:
    state = CanaryState.begin(policy, now=0.0, baseline=BASELINE if baseline else None)
    verdicts = []
    for tally in windows:
        state = advance(policy, state, tally, tally.end)
        verdicts.append(judge(policy, state, tally.end))
    return state, verdicts


def good(count: int) -> list[WindowTally]:
    return [window(i, arm(100)) for i in range(count)]


def test_a_good_canary_is_promoted_with_every_gate_named_in_one_line() -> None:
    state, verdicts = fold(good(60))
    promoted = next(v for v in verdicts if v.kind is VerdictKind.PROMOTE)
    assert promoted.reason_code == "all_gates_cleared"
    assert "canary error 4.0 % <= 4.0 % + 5 pts, e=" in promoted.summary
    assert ">= 20, n=" in promoted.summary
    assert all(g.status == "cleared" and g.literal_pass for g in promoted.gates if g.kind == "promote")
    assert promoted.traffic.is_met
    assert json.loads(json.dumps(promoted.to_json()))["kind"] == "promote"
    assert state.totals.windows == 60


def test_a_hold_says_what_is_still_needed() -> None:
    _, verdicts = fold(good(4))
    assert {v.kind for v in verdicts} == {VerdictKind.HOLD}
    assert "still needed: about" in verdicts[0].summary
    assert "400 of 1000 shadow units" in verdicts[-1].summary


def test_an_outage_is_stopped_by_its_gate_within_a_few_windows() -> None:
    _, verdicts = fold([window(i, arm(10, error=1.0), arm(90)) for i in range(2)])
    assert verdicts[-1].kind is VerdictKind.ABORT
    assert verdicts[-1].reason_code in ("error_margin", "early_stop")
    assert "canary error 100.0 %" in verdicts[-1].summary


def test_harm_is_never_taken_back() -> None:
    _, verdicts = fold(
        [window(0, arm(100, error=1.0)), *(window(i, arm(100, error=0.0)) for i in range(1, 40))]
    )
    assert {v.kind for v in verdicts} == {VerdictKind.ABORT}


@pytest.mark.parametrize(
    ("shadow", "reason"),
    [
        ({"toxic": 0.5}, "toxicity"),
        ({"shift": 600.0}, "p95"),
    ],
)
def test_each_kind_of_harm_is_stopped_by_its_own_gate(shadow: dict[str, float], reason: str) -> None:
    _, verdicts = fold([window(i, arm(50, **shadow)) for i in range(6)])
    assert verdicts[-1].kind is VerdictKind.ABORT
    assert verdicts[-1].reason_code == reason


def test_an_outage_of_both_arms_stops_nothing() -> None:
    both = [window(i, arm(100, error=0.6), arm(900, error=0.6)) for i in range(20)]
    assert VerdictKind.ABORT not in {v.kind for v in fold(both)[1]}


# --- fail closed ---


def test_dropped_shadow_outcomes_abort_as_errors() -> None:
    lost = ArmTally(queries=20, units=20, errors=20.0, missing=20, new_keys=20)
    _, verdicts = fold([window(i, lost) for i in range(5)])
    assert VerdictKind.PROMOTE not in {v.kind for v in verdicts}
    assert verdicts[-1].kind is VerdictKind.ABORT


@pytest.mark.parametrize(
    "changes",
    [
        {"latency": (), "latency_missing": 96.0},
        {"toxic": 0.0, "toxic_missing": 96.0},
    ],
    ids=["no usable latency", "no label"],
)
def test_missing_measurements_hold_and_then_abort(changes: dict[str, float]) -> None:
    policy = replace(POLICY, invalid_ttl_s=30.0)
    _, verdicts = fold([window(i, replace(arm(100), **changes)) for i in range(60)], policy)
    kinds = [v.kind for v in verdicts]
    assert VerdictKind.PROMOTE not in kinds
    assert kinds[5] is VerdictKind.HOLD
    assert kinds[-1] is VerdictKind.ABORT
    assert verdicts[-1].reason_code == "coverage"
    assert not verdicts[5].may_ramp


def test_lost_outcomes_of_the_active_twin_do_not_make_the_shadow_look_good() -> None:
    lost = ArmTally(queries=900, units=900, errors=900.0, missing=900, new_keys=900)
    _, verdicts = fold([window(i, arm(100, error=0.3), lost) for i in range(60)])
    assert VerdictKind.PROMOTE not in {v.kind for v in verdicts}
    assert verdicts[-1].reason_code == "coverage"


LOST = ArmTally(queries=20, units=20, errors=20.0, missing=20, new_keys=20)
HOLDING = replace(POLICY, silent_shadow="hold", stale_ttl_s=10.0)


def test_a_shadow_that_answers_nothing_holds_and_then_aborts_with_that_reason() -> None:
    _, verdicts = fold([*good(3), *(window(i, LOST) for i in range(3, 20))], HOLDING)
    said = [(v.kind, v.reason_code) for v in verdicts]
    assert said[3:14] == [(VerdictKind.HOLD, "silent_shadow")] * 11
    assert said[14] == (VerdictKind.ABORT, "silent_shadow")
    assert not any(v.may_ramp for v in verdicts[3:])


def test_a_shadow_that_answers_again_is_judged_by_all_it_left_unanswered() -> None:
    _, verdicts = fold([*(window(i, LOST) for i in range(5)), window(5, arm(100))], HOLDING)
    assert [v.kind for v in verdicts[:5]] == [VerdictKind.HOLD] * 5
    assert (verdicts[5].kind, verdicts[5].reason_code) == (VerdictKind.ABORT, "error_margin")


def test_errors_that_were_answered_are_not_silence() -> None:
    _, verdicts = fold([window(i, arm(20, error=1.0)) for i in range(5)], HOLDING)
    assert verdicts[-1].kind is VerdictKind.ABORT
    assert verdicts[-1].reason_code != "silent_shadow"


def test_a_window_without_shadow_queries_does_not_end_a_silence() -> None:
    windows = [window(0, LOST), *(window(i, NOTHING) for i in range(1, 20))]
    _, verdicts = fold(windows, HOLDING)
    assert (verdicts[-1].kind, verdicts[-1].reason_code) == (VerdictKind.ABORT, "silent_shadow")


@pytest.mark.parametrize("silent", ["feed", "active", "shadow"])
def test_silence_holds_and_then_aborts(silent: str) -> None:
    policy = replace(POLICY, stale_ttl_s=10.0, invalid_ttl_s=20.0)
    state, _ = fold(good(3), policy)
    for number in range(3, 60):
        if silent != "feed":
            known = arm(90, new_keys=0)
            arms = (NOTHING, known) if silent == "shadow" else (known, NOTHING)
            state = advance(policy, state, window(number, *arms), number + 1.0)
        verdict = judge(policy, state, number + 1.0)
        assert verdict.kind is not VerdictKind.PROMOTE
        if 14 < number < 30:
            assert (verdict.kind, verdict.reason_code) == (VerdictKind.HOLD, "stale")
    assert (verdict.kind, verdict.reason_code) == (VerdictKind.ABORT, "stale")


def test_a_wrong_split_of_keys_holds_and_then_aborts() -> None:
    policy = replace(POLICY, invalid_ttl_s=100.0)
    skewed = [window(i, arm(60), arm(940)) for i in range(200)]
    _, verdicts = fold(skewed, policy)
    first = next(i for i, v in enumerate(verdicts) if v.reason_code == "srm")
    assert first < 12
    assert verdicts[first].kind is VerdictKind.HOLD
    assert verdicts[-1].kind is VerdictKind.ABORT
    assert verdicts[-1].reason_code == "srm"


def test_without_a_latency_yardstick_nothing_is_promoted() -> None:
    policy = replace(POLICY, baseline_min_units=10**9, baseline_units=2 * 10**9)
    _, verdicts = fold(good(40), policy, baseline=False)
    assert {v.kind for v in verdicts} == {VerdictKind.HOLD}
    assert verdicts[-1].x_w_ms is None


# --- the traffic rule ---


def test_five_perfect_answers_do_not_open_the_traffic_rule() -> None:
    _, verdicts = fold([window(0, arm(5, error=0.0), arm(995))])
    assert (verdicts[-1].traffic.is_met, verdicts[-1].traffic.path) == (False, "closed")


def test_traffic_is_counted_in_shadow_units() -> None:
    _, verdicts = fold([window(0, arm(10, error=0.0), arm(9990))])
    assert verdicts[-1].traffic.n_s == 10
    assert not verdicts[-1].traffic.is_met


def test_a_narrow_interval_opens_the_traffic_rule_only_above_its_floor() -> None:
    spotless = [window(i, arm(100, error=0.0)) for i in range(4)]
    _, verdicts = fold(spotless)
    assert [v.traffic.path for v in verdicts] == ["closed", "closed", "interval", "interval"]
    assert fold(spotless, replace(POLICY, ci_width=0.0))[1][-1].traffic.path == "closed"


# --- order, horizon, domains, warm-up ---


def test_evidence_without_the_literal_limit_does_not_promote() -> None:
    state, verdicts = fold(good(40))
    assert verdicts[-1].kind is VerdictKind.PROMOTE
    slow = replace(state, latency_s=latency.dense(times(3000, shift=60.0)))
    verdict = judge(POLICY, slow, 40.0)
    assert (verdict.kind, verdict.reason_code) == (VerdictKind.HOLD, "literal:p95")


def test_three_times_the_error_fails_the_early_stop_though_it_is_within_the_margin() -> None:
    counts = (np.array([1000.0]), np.array([60.0]), np.array([9000.0]), np.array([180.0]))
    within, not_doubled = is_error_literally_fine(POLICY, *counts)
    assert (bool(within[0]), bool(not_doubled[0])) == (True, False)


def test_an_undecided_canary_ends_as_inconclusive() -> None:
    edge = [window(i, arm(100, error=0.09)) for i in range(30)]
    by_units = fold(edge, replace(POLICY, min_shadow=1000, max_shadow=2000))[1]
    assert [v.kind for v in by_units].index(VerdictKind.ABORT) == 19
    assert by_units[19].reason_code == "inconclusive"
    by_time = fold(edge, replace(POLICY, max_duration_s=10.0))[1]
    assert by_time[9].reason_code == "inconclusive"
    assert "undecided after 10 s" in by_time[9].summary


def in_domain(number: int, shadow: ArmTally, name: str = "med") -> WindowTally:
    rest = arm(90)
    return window(number, rest, domains={name: Arms(arm(100), shadow)})


def test_one_broken_domain_stops_a_canary_that_looks_fine_in_all() -> None:
    _, verdicts = fold([in_domain(i, arm(10, error=0.6)) for i in range(12)])
    assert verdicts[-1].kind is VerdictKind.ABORT
    assert verdicts[-1].reason_code == "domain:med"
    assert "canary in med" in verdicts[-1].summary


def test_a_suspect_domain_holds_a_promotion() -> None:
    windows = [in_domain(i, arm(10, error=0.6)) for i in range(3)]
    _, verdicts = fold(windows, replace(POLICY, alpha_domain=1e-12))
    row = next(g for g in verdicts[-1].gates if g.kind == "domain" and g.name == "med")
    assert row.status == "invalid"
    assert verdicts[-1].reason_code == "domain:med"
    assert verdicts[-1].kind is VerdictKind.HOLD


def test_a_domain_nobody_declared_counts_in_all_traffic_only() -> None:
    _, verdicts = fold([in_domain(i, arm(10, error=1.0), name="astrology") for i in range(12)])
    assert VerdictKind.ABORT not in {v.kind for v in verdicts}


def test_cold_start_excuses_latency_but_not_errors() -> None:
    policy = replace(POLICY, warmup_units=50, warmup_s=60.0)
    _, slow = fold([window(0, arm(49, shift=5000.0)), *(window(i, arm(100)) for i in range(1, 60))], policy)
    assert VerdictKind.ABORT not in {v.kind for v in slow}
    _, broken = fold([window(0, arm(40, error=1.0))], policy)
    assert broken[0].kind is VerdictKind.ABORT


def test_a_shadow_worse_within_its_margin_may_not_ramp() -> None:
    _, verdicts = fold([window(i, arm(100, error=0.10), arm(900, error=0.06)) for i in range(12)])
    held = [v for v in verdicts if v.kind is VerdictKind.HOLD]
    assert held[0].may_ramp
    assert not held[-1].may_ramp


def test_a_ramp_step_closes_the_pool_and_is_not_mixed_with_the_next() -> None:
    policy = replace(POLICY, window_units=10_000)
    state = CanaryState.begin(policy, now=0.0, baseline=BASELINE)
    state = advance(policy, state, window(0, arm(10), arm(990)), 1.0)
    state = advance(policy, state, replace(window(1, arm(50), arm(950)), epoch=2, canary_bp=500), 2.0)
    assert float(state.processes["error_abort"].n_s[0]) == 10
    assert state.pending is not None
    assert state.pending.epoch == 2


def test_small_windows_are_pooled_until_both_arms_have_traffic() -> None:
    state = CanaryState.begin(POLICY, now=0.0, baseline=BASELINE)
    for number in range(20):
        state = advance(POLICY, state, window(number, NOTHING, arm(10)), float(number))
    assert float(state.processes["error_abort"].n_a[0]) == 0
    state = advance(POLICY, state, window(20, arm(1), NOTHING), 21.0)
    assert float(state.processes["error_abort"].n_a[0]) == 200


def test_returning_keys_speak_against_a_promotion_but_never_for_it() -> None:
    windows = [replace(window(i, arm(100)), fresh=Arms()) for i in range(60)]
    _, verdicts = fold(windows)
    assert {v.kind for v in verdicts} == {VerdictKind.HOLD}
    worse = [replace(window(i, arm(100, error=0.4)), fresh=Arms()) for i in range(10)]
    assert fold(worse)[1][-1].kind is VerdictKind.ABORT


# --- replay ---


def test_a_replay_from_any_saved_state_ends_in_the_same_bits() -> None:
    windows = [window(i, arm(37 + i % 5, error=0.05)) for i in range(25)]
    policy = replace(POLICY, max_duration_s=1e9)
    whole, verdicts = fold(windows, policy)
    for cut in (1, 7, 24):
        half, _ = fold(windows[:cut], policy)
        state = CanaryState.from_json(json.loads(json.dumps(half.to_json())))
        for tally in windows[cut:]:
            tally = WindowTally.from_json(json.loads(json.dumps(tally.to_json())))
            state = advance(policy, state, tally, tally.end)
        assert json.dumps(state.to_json()) == json.dumps(whole.to_json())
        assert judge(policy, state, 25.0) == verdicts[-1]


def test_the_digest_names_exactly_the_windows_that_were_judged() -> None:
    one, two = fold(good(5))[0], fold([*good(4), window(4, arm(100, toxic=0.02))])[0]
    assert fold(good(5))[0].windows_digest == one.windows_digest
    assert one.windows_digest != two.windows_digest


def test_every_number_of_a_verdict_is_finite() -> None:
    for windows in (good(3), [window(i, arm(500, error=1.0)) for i in range(30)]):
        for verdict in fold(windows)[1]:
            text = json.dumps(verdict.to_json(), allow_nan=False)
            assert math.isfinite(verdict.mean_e_abort)
            assert "nan" not in text.lower().replace("finance", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha_abort": 0.0},
        {"error_margin": -0.1},
        {"min_shadow": 0},
        {"max_shadow": 10},
        {"early_stop_ratio": 0.5},
        {"domains": ("law", "law")},
        {"error_mode": "sometimes"},
    ],
)
def test_an_impossible_policy_is_refused_by_name(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        replace(POLICY, **changes)  # type: ignore[arg-type]


def test_a_relative_margin_is_judged_relatively() -> None:
    policy = replace(POLICY, error_mode="relative", error_margin=0.5)
    _, verdicts = fold([window(i, arm(100, error=0.09), arm(900, error=0.08)) for i in range(3)], policy)
    row = next(g for g in verdicts[-1].gates if g.kind == "promote" and g.name == "error_margin")
    assert (row.r, row.c) == (1.5, 0.0)
    assert "x 1.5" in row.line


def test_an_overload_before_the_canary_fades_from_the_yardstick() -> None:
    overloaded = BASELINE + 0.0
    overloaded[-1] = BASELINE.sum()
    remembered = {}
    for units in (1000, 20_000):
        policy = replace(POLICY, baseline_units=units)
        state = CanaryState.begin(policy, now=0.0, baseline=overloaded)
        for each in good(12):
            state = advance(policy, state, each, each.end)
        remembered[units] = float(state.baseline[-1] / state.baseline.sum())
    assert remembered[1000] < 0.05 < remembered[20_000]
