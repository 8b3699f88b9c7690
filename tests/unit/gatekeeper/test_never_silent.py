"""Whoever watches is told something at least every ten seconds for as long as a stage runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.decisions import Progress
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

SLOW: dict[str, Any] = {"ramp": {"min_step_s": 5}, "promote": {"bake_s": 300}}


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


def shipped_watch() -> dict[str, Any]:
    shipped = yaml.safe_load(Path("configs/gatekeeper.yaml").read_text())
    return dict(shipped["gatekeeper"]["policy"]["watch"])


def told_in(history: History, windows: int, **traffic: Any) -> list[Progress]:
    """What people were told while so many windows of the running canary closed."""
    before = len(history.progress)
    history.traffic(windows, **traffic)
    return history.progress[before:]


@pytest.mark.parametrize("begin", [canary, mirroring, bake, ab_test], ids=lambda value: value.__name__)
def test_as_shipped_each_closed_window_of_a_stage_is_told(
    begin: Callable[[], History], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SLOW, "watch", shipped_watch())
    history = begin()
    before = len(history.progress)
    for _ in range(6):
        history.window(shadow=50, active=950)
        history.tick(0.5)
    told = history.progress[before:]
    assert len(told) == 6
    assert all(progress.phase == history.routing.phase for progress in told)


def test_the_record_of_a_window_has_every_gate_with_value_evidence_count_and_what_is_needed() -> None:
    history = History({**SLOW, "watch": shipped_watch()}).begin()
    history.warm()
    history.to_canary()
    history.traffic(8)
    told = history.progress[-1]
    names = {gate.name for gate in told.gates}
    assert {
        "abort:error_margin",
        "abort:p95",
        "abort:toxicity",
        "promote:error_margin",
        "domain:law",
    } <= names
    error = next(gate for gate in told.gates if gate.name == "promote:error_margin").values
    assert {"e", "threshold", "n_s", "x_s", "est_s", "est_a", "ci_s", "ci_a"} <= set(error)
    assert "more shadow units" in told.needed


def test_windows_that_close_together_are_told_once() -> None:
    """A backlog is read at once, and time stands still meanwhile: the log gets one record, not a thousand."""
    history = History({**SLOW, "watch": shipped_watch()}).begin()
    history.warm()
    history.to_canary()
    told = told_in(history, 100, seconds=0.0)
    assert len(told) <= 1
    assert len(told_in(history, 100, seconds=0.01)) <= 2
    history.tick(0.5)
    assert history.progress[-1].at == history.now


def test_without_that_key_a_window_is_told_as_often_as_before() -> None:
    history = History().begin()
    history.warm()
    history.to_canary()
    told = told_in(history, 11)
    assert len(told) == 2
    assert "ci_s" not in told[-1].gates[0].values
