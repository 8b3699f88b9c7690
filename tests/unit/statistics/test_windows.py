"""Windows close by assignment: nothing in flight is forgotten, nothing counts twice, order does not matter."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.errors import ConfigError
from twinloop.statistics.tally import WindowTally
from twinloop.statistics.windows import Assignment, Outcome, PartitionWindows, WindowPolicy

POLICY = WindowPolicy(lateness_s=1.0, grace_s=2.0)


def asked(
    name: str, at: float, *, arm: str = "shadow", unit: str = "", epoch: int = 1, hops: int = 0
) -> Assignment:
    return Assignment(
        query_id=name,
        unit=unit or name,
        arm="shadow" if arm == "shadow" else "active",
        domain="law",
        epoch=epoch,
        canary_bp=1000,
        at=at,
        deadline=at + 10.0,
        hops=hops,
    )


def answered(
    name: str, at: float, *, ok: bool = True, ms: float = 100.0, toxic: float | None = 0.0
) -> Outcome:
    return Outcome(name, ok, at, ms, toxic)


def fed(rows: list[Assignment | Outcome], policy: WindowPolicy = POLICY) -> PartitionWindows:
    windows = PartitionWindows(policy)
    for offset, row in enumerate(rows):
        if isinstance(row, Assignment):
            windows.assign(row, offset)
        else:
            windows.outcome(row, offset)
    return windows


def test_a_window_waits_for_the_answer_in_flight() -> None:
    windows = fed([asked("a", 0.1), asked("b", 0.2), answered("a", 0.3)])
    assert windows.close(5.0) == ()
    windows.outcome(answered("b", 6.0), 9)
    (tally,) = (t for t in windows.close(6.0) if not t.is_empty)
    assert (tally.total.shadow.units, tally.total.shadow.errors) == (2, 0.0)


def test_a_query_without_an_outcome_is_an_error_once_its_deadline_has_passed() -> None:
    windows = fed([asked("a", 0.1), asked("b", 0.2, arm="active")])
    assert windows.close(12.1) == ()
    tally = windows.close(12.3)[0]
    assert (tally.total.shadow.errors, tally.total.shadow.missing) == (1.0, 1)
    assert (tally.total.active.errors, tally.total.active.missing) == (1.0, 1)
    assert tally.total.shadow.latency == ()


def test_an_open_window_keeps_later_ones_back() -> None:
    windows = fed([asked("slow", 0.1), asked("b", 1.2), answered("b", 1.3)])
    assert windows.close(5.0) == ()
    assert [t.start for t in windows.close(13.0) if not t.is_empty] == [0.0, 1.0]


def test_a_key_counts_once_with_its_mean() -> None:
    rows: list[Assignment | Outcome] = [asked(f"q{i}", 0.1 * i, unit="u") for i in range(4)]
    rows += [answered(f"q{i}", 1.0, ok=i > 0, toxic=1.0 if i == 1 else 0.0) for i in range(4)]
    tally = fed(rows).close(3.0)[0].total.shadow
    assert (tally.queries, tally.units, tally.errors) == (4, 1, 0.25)
    assert tally.toxic == pytest.approx(1 / 3)
    assert sum(weight for _, weight in tally.latency) == pytest.approx(1.0)


def test_a_returning_key_is_not_fresh_again_within_a_ramp_step() -> None:
    rows = [asked("a", 0.1, unit="u"), answered("a", 0.2), asked("b", 1.1, unit="u"), answered("b", 1.2)]
    rows += [asked("c", 1.3, unit="v"), answered("c", 1.4)]
    first, second = (t for t in fed(rows).close(4.0) if not t.is_empty)
    assert first.fresh is None
    assert first.total.shadow.new_keys == 1
    assert second.total.shadow.units == 2
    assert second.total.shadow.new_keys == 1
    assert second.independent.shadow.units == 1
    again = fed([*rows, asked("d", 2.1, unit="u", epoch=2), answered("d", 2.2)]).close(5.0)
    assert next(t for t in again if t.epoch == 2).fresh is None


def test_keys_of_a_finished_canary_do_not_hold_the_restart_back() -> None:
    windows = fed([asked("a", 0.1), answered("a", 0.2)])
    windows.close(3.0)
    assert windows.restart_offsets().assignments == 0
    windows.assign(replace(asked("b", 4.1, epoch=2), canary_bp=0), 7)
    windows.outcome(answered("b", 4.2), 8)
    windows.close(7.0)
    assert windows.restart_offsets().assignments == 8


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, None])
def test_an_unusable_latency_is_missing_not_fast(bad: float | None) -> None:
    tally = fed([asked("a", 0.1), Outcome("a", True, 0.2, bad, 0.0)]).close(3.0)[0].total.shadow
    assert (tally.latency, tally.latency_missing, tally.answered) == ((), 1.0, 1)


def test_a_label_that_is_no_number_between_0_and_1_is_missing() -> None:
    rows = [
        asked("a", 0.1),
        answered("a", 0.2, toxic=math.nan),
        asked("b", 0.1),
        answered("b", 0.2, toxic=7.0),
    ]
    tally = fed(rows).close(3.0)[0].total.shadow
    assert (tally.toxic, tally.toxic_missing) == (0.0, 2.0)


def test_a_forwarded_query_counts_in_its_last_arm_only() -> None:
    rows = [asked("a", 0.1), asked("a", 0.1, arm="active", epoch=2, hops=1), answered("a", 0.4)]
    (tally,) = (t for t in fed(rows).close(3.0) if not t.is_empty)
    assert (tally.epoch, tally.total.active.queries, tally.total.shadow.queries) == (2, 1, 0)


def test_repeated_rows_are_counted_as_duplicates_and_not_used() -> None:
    rows = [asked("a", 0.1), asked("a", 0.1), answered("a", 0.2), answered("a", 0.3, ok=False)]
    tally = fed(rows).close(3.0)[0]
    assert (tally.duplicates, tally.total.shadow.queries, tally.total.shadow.errors) == (2, 1, 0.0)


def test_rows_after_their_window_has_closed_are_counted_as_late() -> None:
    windows = fed([asked("a", 0.1), answered("a", 0.2)])
    assert windows.close(3.0)[0].start == 0.0
    windows.assign(asked("b", 0.5), 7)
    windows.assign(asked("c", 3.5), 8)
    windows.outcome(answered("c", 3.6), 9)
    assert windows.close(6.0)[0].late == 1


def test_an_outcome_may_come_before_its_assignment() -> None:
    tally = fed([answered("a", 0.2), asked("a", 0.1)]).close(3.0)[0]
    assert (tally.total.shadow.units, tally.total.shadow.missing) == (1, 0)


def test_an_outcome_whose_assignment_never_comes_is_dropped_and_counted() -> None:
    windows = fed([answered("ghost", 0.2)])
    assert sum(t.late for t in windows.close(30.0)) == 0
    assert sum(t.late for t in windows.close(100.0)) == 1


def test_an_idle_partition_gives_a_heartbeat() -> None:
    windows = fed([])
    (beat,) = windows.close(9.5)
    assert beat.is_empty
    assert (beat.start, beat.end, windows.closed_until) == (0.0, 8.0, 8.0)
    assert windows.close(9.6) == ()


def test_a_window_may_wait_for_labels() -> None:
    rows = [asked("a", 0.1), answered("a", 0.2, toxic=None)]
    windows = fed(rows, replace(POLICY, waits_for_labels=True))
    assert windows.close(5.0) == ()
    windows.outcome(answered("a", 6.0, toxic=1.0), 9)
    assert windows.close(6.5)[0].total.shadow.toxic == 1.0


def numbers(tallies: list[WindowTally]) -> list[str]:
    return [json.dumps(t.to_json(), sort_keys=True) for t in tallies if not t.is_empty]


ROWS: list[Assignment | Outcome] = []
for _i in range(24):
    _at = 0.13 * _i
    ROWS.append(asked(f"q{_i}", _at, arm="shadow" if _i % 5 == 0 else "active", unit=f"u{_i % 5}"))
    ROWS.append(answered(f"q{_i}", _at + 0.4, ok=_i % 7 != 0, ms=100.0 + 37 * _i, toxic=(_i % 3) / 3))


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(24)), st.integers(0, 24))
def test_the_order_in_which_outcomes_arrive_changes_nothing(order: list[int], split: int) -> None:
    straight = numbers(list(fed(ROWS).close(20.0)))
    assignments, outcomes = ROWS[0::2], ROWS[1::2]
    mixed = [*(outcomes[i] for i in order[:split]), *assignments, *(outcomes[i] for i in order[split:])]
    assert numbers(list(fed(mixed).close(20.0))) == straight


def test_windows_survive_json_at_any_row() -> None:
    whole = [t for k in range(5) for t in ([] if k else fed(ROWS).close(20.0))]
    for cut in (0, 1, 17, 40, len(ROWS)):
        first = fed(ROWS[:cut])
        early = list(first.close(1.9))
        again = PartitionWindows.from_json(POLICY, json.loads(json.dumps(first.to_json())))
        assert json.dumps(again.to_json(), sort_keys=True) == json.dumps(first.to_json(), sort_keys=True)
        for offset, row in enumerate(ROWS[cut:], start=cut):
            again.assign(row, offset) if isinstance(row, Assignment) else again.outcome(row, offset)
        if cut in (0, len(ROWS)):
            assert numbers([*early, *again.close(20.0)]) == numbers(whole)


def test_a_restart_from_the_restart_offsets_closes_the_same_windows() -> None:
    topic_a = [row for row in ROWS if isinstance(row, Assignment)]
    topic_o = [row for row in ROWS if isinstance(row, Outcome)]

    def read(windows: PartitionWindows, from_a: int, to_a: int, from_o: int, to_o: int) -> None:
        for offset in range(from_a, to_a):
            windows.assign(topic_a[offset], offset)
        for offset in range(from_o, to_o):
            windows.outcome(topic_o[offset], offset)

    straight = PartitionWindows(POLICY)
    read(straight, 0, 12, 0, 10)
    published = straight.close(3.2)
    closed_until, open_from, offsets = straight.closed_until, straight.open_from(), straight.restart_offsets()
    read(straight, 12, 24, 10, 24)
    assert open_from is not None
    assert offsets.assignments is not None
    assert offsets.outcomes is not None
    resumed = PartitionWindows(POLICY, closed_until=closed_until, open_from=open_from)
    read(resumed, offsets.assignments, 24, offsets.outcomes, 24)
    assert len(numbers(list(published))) == 1
    rest, again = list(straight.close(20.0)), list(resumed.close(20.0))
    assert [json.loads(t)["total"] for t in numbers(again)] == [json.loads(t)["total"] for t in numbers(rest)]
    assert [t.fresh for t in again] == [t.fresh for t in rest]


def test_an_impossible_window_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="seconds must be positive"):
        WindowPolicy(seconds=0.0)
