"""Tallies add up across partitions, travel as JSON, and wait for the slowest partition."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from twinloop.statistics.tally import Arms, ArmTally, TallyMerger, WindowTally, merge

ARM = ArmTally(queries=3, units=2, errors=0.5, answered=2, latency=((10, 1.0), (20, 1.0)), new_keys=2)


def window(start: float, *, epoch: int = 1, arm: ArmTally = ARM) -> WindowTally:
    return WindowTally(start, start + 1.0, epoch, 500, Arms(arm, arm), {"law": Arms(shadow=arm)})


def test_a_merge_adds_every_count() -> None:
    both = merge(window(0.0), replace(window(1.0), domains={"med": Arms(ARM, ARM)}, late=2))
    assert (both.start, both.end, both.late) == (0.0, 2.0, 2)
    assert both.total.shadow == ArmTally(
        queries=6, units=4, errors=1.0, answered=4, latency=((10, 2.0), (20, 2.0)), new_keys=4
    )
    assert sorted(both.domains) == ["law", "med"]


def test_tallies_of_two_ramp_steps_are_never_pooled() -> None:
    with pytest.raises(ValueError, match="must not be pooled"):
        merge(window(0.0), window(1.0, epoch=2))


def test_fresh_units_merge_with_windows_in_which_every_unit_is_fresh() -> None:
    returning = replace(window(1.0), fresh=Arms())
    assert merge(window(0.0), window(1.0)).fresh is None
    assert merge(window(0.0), returning).independent == window(0.0).total


@pytest.mark.parametrize("tally", [window(0.0), replace(window(2.5), fresh=Arms(ARM))])
def test_a_tally_survives_json(tally: WindowTally) -> None:
    assert WindowTally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


def test_a_window_leaves_the_merger_when_the_last_partition_has_passed_it() -> None:
    merger = TallyMerger((0, 1))
    merger, ready = merger.offer(0, window(0.0))
    assert ready == ()
    merger, ready = merger.offer(0, window(1.0))
    assert ready == ()
    merger, ready = merger.offer(1, window(1.0))
    assert [tally.start for tally in ready] == [0.0, 1.0]
    assert ready[1].total.active.queries == 6


def test_the_first_tally_of_a_partition_and_window_counts() -> None:
    merger = TallyMerger((0,))
    merger, first = merger.offer(0, window(0.0))
    merger, again = merger.offer(0, window(0.0, arm=replace(ARM, errors=2.0)))
    assert len(first) == 1
    assert again == ()


def test_an_idle_partition_lets_others_pass_by_its_heartbeat() -> None:
    merger = TallyMerger((0, 1))
    merger, ready = merger.offer(0, window(5.0))
    assert ready == ()
    merger, ready = merger.offer(1, WindowTally(0.0, 6.0))
    assert [tally.start for tally in ready] == [5.0]


def test_a_merger_survives_json() -> None:
    merger, _ = TallyMerger((0, 1)).offer(0, window(0.0))
    again = TallyMerger.from_json(json.loads(json.dumps(merger.to_json())))
    assert again.offer(1, window(0.0))[1] == merger.offer(1, window(0.0))[1]


def test_an_unknown_partition_is_refused() -> None:
    with pytest.raises(ValueError, match="partition 7"):
        TallyMerger((0, 1)).offer(7, window(0.0))
