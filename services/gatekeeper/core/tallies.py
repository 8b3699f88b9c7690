"""Tallies of single partitions become whole windows, in order of assignment time, and each is judged once."""

from __future__ import annotations

from dataclasses import replace

from schemas.gate_inputs import Tally
from services.gatekeeper.core.ab_test import advance_ab_test, watch_ab_test
from services.gatekeeper.core.canary import advance_canary, watch_canary
from services.gatekeeper.core.mirroring import take_copies, take_users, watch_mirror
from services.gatekeeper.core.rollback import watch_triggers
from services.gatekeeper.core.turn import Turn
from twinloop.statistics.canary_state import observe_baseline
from twinloop.statistics.latency import dense, sparse
from twinloop.statistics.tally import TallyMerger, WindowTally


def on_tally(turn: Turn, tally: Tally) -> None:
    """Take one partition's window; the first one by (purpose, partition, start, epoch) counts."""
    if tally.partition not in turn.state.merger.partitions:
        return  # Written under settings with more partitions than the policy record announced.
    if tally.purpose == "mirror":
        _on_copies(turn, tally)
        return
    window = WindowTally.from_json(tally.window.model_dump(mode="json"))
    # The share is looked up here: two tally stages must never disagree about it within one window.
    window = replace(window, canary_bp=turn.state.shares.get(window.epoch, 0))
    merger, whole = turn.state.merger.offer(tally.partition, window)
    turn.set(merger=merger)
    if tally.open_from >= 0:
        turn.set(open_from={**turn.state.open_from, tally.partition: tally.open_from})
    for each in whole:
        _take(turn, each)


def _on_copies(turn: Turn, tally: Tally) -> None:
    partitions = turn.state.merger.partitions
    known = turn.state.copies
    merger = known if known.partitions == partitions else TallyMerger(partitions)
    window = WindowTally.from_json(tally.window.model_dump(mode="json"))
    merger, whole = merger.offer(tally.partition, window)
    turn.set(copies=merger)
    for each in whole:
        turn.note_window()
        take_copies(turn, each)
    watch_mirror(turn)


def _take(turn: Turn, window: WindowTally) -> None:
    state = turn.state
    if state.routing is None:
        return
    turn.note_window()
    if window.epoch >= state.active_since_epoch and window.total.active.answered:
        keep = float(turn.policy.watch.baseline_units)
        turn.set(baseline=sparse(observe_baseline(dense(state.baseline), window, keep=keep)))
    watch_triggers(turn, window)
    advance_canary(turn, window)
    take_users(turn, window)
    watch_canary(turn)
    watch_mirror(turn)
    advance_ab_test(turn, window)
    watch_ab_test(turn)
