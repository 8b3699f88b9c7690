"""Rollback triggers: quiet at the limit for a long time, loud within a few requests of an outage."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from twinloop.errors import ConfigError
from twinloop.statistics import latency
from twinloop.statistics.ecusum import ECusumSpec, ECusumState, detect, is_alarm
from twinloop.statistics.tally import Arms, ArmTally, WindowTally
from twinloop.statistics.triggers import (
    TriggerPolicy,
    TriggerState,
    burn_limits,
    judge_triggers,
    trigger_specs,
    watch,
)

POLICY = TriggerPolicy()
ERROR = trigger_specs(POLICY)["error"]


def window(n: int, *, errors: float = 0.0, ms: float = 200.0, toxic: float = 0.0) -> WindowTally:
    answered = n - int(errors)
    times = ((int(latency.bins_of(ms)), float(answered)),) if answered else ()
    arm = ArmTally(queries=n, units=n, errors=errors, answered=answered, latency=times, toxic=toxic)
    return WindowTally(0.0, 1.0, total=Arms(active=arm))


def test_a_rate_well_below_the_limit_raises_no_alarm() -> None:
    rng = np.random.default_rng(42)
    state, alarmed = ECusumState.start(ERROR, (50,)), np.zeros(50, dtype=bool)
    for _ in range(4000):
        state = detect(ERROR, state, np.ones(50), rng.random(50) < 0.08)
        alarmed |= is_alarm(ERROR, state)
    assert not alarmed.any()


@pytest.mark.parametrize(("rate", "limit"), [(0.30, 280), (1.0, 10)])
def test_a_jump_is_seen_within_its_limit(rate: float, limit: int) -> None:
    rng = np.random.default_rng(42)
    state, delay = ECusumState.start(ERROR, (200,)), np.zeros(200)
    for _ in range(300):
        state = detect(ERROR, state, np.ones(200), rng.random(200) < 0.04)
    for number in range(1, 600):
        state = detect(ERROR, state, np.ones(200), rng.random(200) < rate)
        delay = np.where((delay == 0) & is_alarm(ERROR, state), number, delay)
    assert (delay > 0).all()
    assert np.quantile(delay, 0.95) <= limit


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (window(20, errors=20.0), "error"),
        (window(20, ms=1500.0), "p95"),
        (window(20, toxic=12.0), "toxicity"),
    ],
)
def test_each_trigger_fires_by_name_and_stays_fired(bad: WindowTally, name: str) -> None:
    state = TriggerState.begin(POLICY, now=0.0)
    for second in range(30):
        state = watch(POLICY, state, window(100), float(second))
    assert judge_triggers(POLICY, state, 30.0).reason_code == "quiet"
    state = watch(POLICY, state, bad, 31.0)
    state = watch(POLICY, state, window(1000), 32.0)
    verdict = judge_triggers(POLICY, state, 33.0)
    assert (verdict.is_fired, verdict.reason_code, verdict.fired_at) == (True, name, 31.0)
    assert any(row.is_fired and row.name == name for row in verdict.rows)


def test_silence_is_called_blind_and_fires_nothing() -> None:
    state = TriggerState.begin(POLICY, now=0.0)
    state = watch(POLICY, state, WindowTally(0.0, 1.0), 500.0)
    verdict = judge_triggers(POLICY, state, 500.0)
    assert (verdict.is_fired, verdict.is_blind, verdict.reason_code) == (False, True, "blind")


def test_trigger_state_survives_json_with_the_same_bits() -> None:
    state = watch(POLICY, TriggerState.begin(POLICY, now=0.0), window(100, errors=7.3), 1.0)
    text = json.dumps(state.to_json())
    again = TriggerState.from_json(json.loads(text))
    after = [watch(POLICY, s, window(50, errors=9.0), 2.0).to_json() for s in (state, again)]
    assert json.dumps(again.to_json()) == text
    assert after[0] == after[1]


def test_burn_rate_limits_can_fire_for_any_budget() -> None:
    assert [rate for _, _, rate in burn_limits(0.001)] == [14.4, 6.0]
    assert all(rate < 1 / 0.10 for _, _, rate in burn_limits(0.10))
    with pytest.raises(ValueError, match="budget"):
        burn_limits(1.5)


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match="error_max"):
        TriggerPolicy(error_max=15.0)
    with pytest.raises(ValueError, match="limit < rates"):
        ECusumSpec(0.3, (0.2,))


def test_one_stall_alone_is_no_reason_to_go_back() -> None:
    policy = replace(POLICY, min_windows=3)
    state = TriggerState.begin(policy, now=0.0)
    for second in range(1, 40):
        state = watch(policy, state, window(30, ms=2500.0 if second in (9, 10) else 60.0), float(second))
    assert judge_triggers(policy, state, 40.0).reason_code == "quiet"
    assert judge_triggers(POLICY, state, 40.0).rows[1].evidence < POLICY.alarm


def test_slowness_that_stays_is_seen_in_the_third_window() -> None:
    policy = replace(POLICY, min_windows=3)
    state, alarmed = TriggerState.begin(policy, now=0.0), []
    for second in range(1, 10):
        state = watch(policy, state, window(30, ms=60.0 if second < 5 else 2500.0), float(second))
        if judge_triggers(policy, state, float(second)).is_fired:
            alarmed.append(second)
    assert alarmed[0] == 7


def test_the_windows_of_an_earlier_stall_do_not_count_once_its_evidence_is_gone() -> None:
    policy = replace(POLICY, min_windows=3)
    state = TriggerState.begin(policy, now=0.0)
    for second in range(1, 400):
        state = watch(policy, state, window(30, ms=2500.0 if second in (9, 10, 390) else 60.0), float(second))
    assert judge_triggers(policy, state, 400.0).reason_code == "quiet"
    assert TriggerState.from_json(json.loads(json.dumps(state.to_json()))).to_json() == state.to_json()
