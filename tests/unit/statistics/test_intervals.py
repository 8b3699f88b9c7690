"""Each gate's value comes with an interval for each arm that holds at every look."""

from __future__ import annotations

import json

import numpy as np
import pytest

from twinloop.statistics.canary_state import CanaryState, advance
from twinloop.statistics.gate_rows import gate_rows
from twinloop.statistics.intervals import with_intervals
from twinloop.statistics.latency import BINS, bins_of
from twinloop.statistics.policy import CanaryPolicy
from twinloop.statistics.proportions import confidence_sequence
from twinloop.statistics.tally import Arms, ArmTally, WindowTally
from twinloop.statistics.verdict import GateRow

POLICY = CanaryPolicy(warmup_units=0, domains=("law",))
FAST, SLOW = (int(bins_of([ms])[0]) for ms in (100.0, 400.0))


def rows_after(windows: int) -> tuple[GateRow, ...]:
    """A shadow of 10 keys and an active twin of 90 a window; a tenth of all fails, a tenth is slow, 2 % are flagged."""
    baseline = np.zeros(BINS)
    baseline[FAST] = 1000.0

    def arm(units: int) -> ArmTally:
        tenth = units / 10
        return ArmTally(
            queries=units,
            units=units,
            errors=tenth,
            answered=units,
            latency=((FAST, units - tenth), (SLOW, tenth)),
            toxic=units / 50,
            new_keys=units,
        )

    state = CanaryState.begin(POLICY, now=0.0, baseline=baseline)
    arms = Arms(active=arm(90), shadow=arm(10))
    for at in range(windows):
        window = WindowTally(start=at, end=at + 1, epoch=1, canary_bp=1000, total=arms, domains={"law": arms})
        state = advance(POLICY, state, window, at + 1.0)
    return gate_rows(POLICY, state)


def test_every_gate_has_the_interval_of_each_arm_it_compares() -> None:
    for row in with_intervals(rows_after(30), 0.05):
        assert row.ci_s is not None, row.name
        assert row.ci_s[0] < row.x_s / row.n_s < row.ci_s[1], row.name
        if row.name == "toxicity":
            assert row.ci_a is None  # One arm against a fixed limit.
        else:
            assert row.ci_a is not None, row.name
            assert row.ci_a[0] < row.x_a / row.n_a < row.ci_a[1], row.name
            assert row.ci_a[1] - row.ci_a[0] < row.ci_s[1] - row.ci_s[0], row.name


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_they_are_the_confidence_sequence_of_the_counts_in_the_row(alpha: float) -> None:
    """To a millionth, and rather too wide than too narrow."""
    row = with_intervals(rows_after(30), alpha)[0]
    low, high = (float(end) for end in confidence_sequence(row.x_s, row.n_s, alpha))
    assert row.ci_s is not None
    assert row.ci_s == pytest.approx((low, high), abs=2e-6)
    assert row.ci_s[0] <= low
    assert row.ci_s[1] >= high


def test_nothing_seen_has_no_interval_and_says_nothing_of_it() -> None:
    row = with_intervals(rows_after(0), 0.05)[0]
    assert row.ci_s is None
    assert row.to_json() == rows_after(0)[0].to_json()
    assert "ci_s" not in row.to_json()


def test_no_gate_reads_them() -> None:
    """But for the intervals a row is what it was, also through JSON; without a level there are none."""
    plain = rows_after(30)
    assert with_intervals(plain, 0.0) == plain
    for before, after in zip(plain, with_intervals(plain, 0.05), strict=True):
        document = json.loads(json.dumps(after.to_json()))
        assert {
            key: value for key, value in document.items() if key not in ("ci_s", "ci_a")
        } == before.to_json()
