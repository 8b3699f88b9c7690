"""Whoever watches is told something at least every ten seconds for as long as a stage runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.event import SLOTS
from services.gatekeeper.core.effects import PublishDecision, PublishProgress
from services.gatekeeper.core.state import (
    AbTest,
    Bake,
    CanaryRun,
    Examining,
    Forcing,
    Mirroring,
    Preparing,
    Returning,
)
from services.gatekeeper.settings import LONGEST_SILENCE_S
from tests.histories.script import BOOT, GOOD, NEWER, History

SLOW = {"ramp": {"min_step_s": 5}, "promote": {"bake_s": 300}}


def preparing() -> History:
    history = History(SLOW).begin()
    history.propose()
    return history


def examining() -> History:
    history = preparing()
    history.prepare()
    return history


def mirroring() -> History:
    history = History({**SLOW, "mirror": {"basis_points": 1000}}).begin()
    history.propose()
    history.prepare()
    history.examine()
    return history


def canary() -> History:
    history = History(SLOW).begin()
    history.warm()
    history.to_canary()
    return history


def paused_canary() -> History:
    history = canary()
    history.order("pause")
    return history


def checking_blobs() -> History:
    history = canary()
    history.until_cleared(100)
    return history


def forcing() -> History:
    history = examining()
    history.order("promote", key_id="approver-1")
    return history


def bake() -> History:
    history = History(SLOW).begin()
    history.warm()
    history.to_promoted()
    return history


def bake_over() -> History:
    history = History({**SLOW, "promote": {"bake_s": 10}}).begin()
    history.warm()
    history.to_promoted()
    history.tick(11)
    history.applied()
    return history


def returning() -> History:
    history = bake_over()
    history.warm()
    history.to_promoted(NEWER, parent=GOOD)
    for slot in SLOTS:
        history.ready(slot, GOOD, NEWER)
    history.order("rollback", release=BOOT)
    return history


def ab_test() -> History:
    history = bake_over()
    history.prepare()
    history.order("ab_start")
    return history


@pytest.mark.parametrize(
    ("begin", "stage"),
    [
        (preparing, Preparing),
        (examining, Examining),
        (mirroring, Mirroring),
        (canary, CanaryRun),
        (paused_canary, CanaryRun),
        (checking_blobs, CanaryRun),
        (forcing, Forcing),
        (bake, Bake),
        (returning, Returning),
        (ab_test, AbTest),
    ],
    ids=lambda value: value.__name__,
)
def test_no_stage_is_silent_for_ten_seconds(begin: Callable[[], History], stage: type) -> None:
    """With nothing to go on but the clock: no traffic, no results, nobody answers."""
    history = begin()
    assert isinstance(history.state.stage, stage)
    told_at = history.now
    for _ in range(50):
        if history.state.stage is None:
            break
        effects = history.tick(0.5)
        if any(isinstance(effect, PublishProgress | PublishDecision) for effect in effects):
            told_at = history.now
        assert history.now - told_at <= LONGEST_SILENCE_S * 1000
    assert (
        any(progress.at > history.now - 10_000 for progress in history.progress)
        or history.state.stage is None
    )


def test_a_progress_line_says_which_stage_and_what_is_needed() -> None:
    for begin in (preparing, examining, mirroring, canary, checking_blobs, forcing, returning, ab_test):
        history = begin()
        for _ in range(20):
            history.tick(0.5)
        assert history.progress[-1].needed, begin.__name__
