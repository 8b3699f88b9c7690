"""From the previous version to this one and back while users ask: every query ends once, whatever version met it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from schemas.answers import Answer
from schemas.feedback import FeedbackStatus
from tests.fixtures.live_system import ROOT, LiveSystem, Load, Service, wait_until
from tests.fixtures.previous_version import previous_tree
from twinloop.client.client import Client
from twinloop.codec import decode
from twinloop.process import EXIT_OK

pytestmark = [pytest.mark.slow, pytest.mark.alone]

START_S = 240.0
"""A worker loads its model in seconds; on a machine that does ten other things, in minutes."""


def exchanged(live: LiveSystem, service: Service, tree: Path, **environment: str) -> Service:
    """The same process identity from another version's tree: asked to stop, waited for, started, waited for."""
    service.child.stop(grace_s=60)
    assert service.child.exit_status == EXIT_OK, service.child.log_tail(30)
    instance = service.name.removeprefix(f"{service.service}-")
    fresh = live.start(service.service, instance, tree=tree, **environment)
    fresh.wait_ready(START_S)
    return fresh


def test_each_tree_runs_its_own_code(tmp_path: Path) -> None:
    for tree in (previous_tree(tmp_path), ROOT):
        program = (
            "import services.router.worker as worker, twinloop; print(worker.__file__, twinloop.__file__)"
        )
        printed = subprocess.run(
            [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True
        ).stdout
        assert all(Path(each).is_relative_to(tree) for each in printed.split())


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_router_and_worker_are_upgraded_and_downgraded_under_load_and_lose_no_query(
    live: LiveSystem, counted: Callable[..., None], tmp_path: Path
) -> None:
    old = previous_tree(tmp_path / "tree")
    live.install(live.state(1), "create")
    router, worker = live.start("router", tree=old), live.start("inference", "blue-0", tree=old)
    live.wait_ready(router, worker, timeout_s=START_S)
    load = Load(live, per_s=15, deadline_ms=600_000)
    time.sleep(2.0)
    for tree in (ROOT, old):
        worker = exchanged(live, worker, tree)
        time.sleep(1.0)
        router = exchanged(live, router, tree)
        time.sleep(1.0)
    load.stop()
    found = live.settled(load, timeout_s=240)
    counted(
        sent=found.sent, lost=len(found.lost), doubled=len(found.doubled), strange=len(found.strange),
        ended=found.kinds, dead_letters=len(live.records("dead-letters")),
    )  # fmt: skip
    assert found.is_whole
    assert found.kinds.get("answered") == found.sent
    assert live.records("dead-letters") == []


class WholeSystem:
    """Every service of one version, replaced one by one by those of another."""

    ORDER = ("gatekeeper-0", "trainer-0", "inference-green-0", "inference-blue-0", "router-0", "router-1")
    """Readers before writers: what a newer version adds to a record is read by those that know it."""

    def __init__(self, live: LiveSystem, tree: Path) -> None:
        self._live = live
        for name in self.ORDER:
            service, _, instance = name.partition("-")
            live.start(service, instance, tree=tree)
        live.wait_ready(timeout_s=START_S)

    def roll(self, tree: Path, *, forward: bool) -> None:
        for name in self.ORDER if forward else reversed(self.ORDER):
            exchanged(self._live, self._live.services[name], tree)
            time.sleep(0.5)

    def order(self, action: str, reason: str) -> None:
        """An order by the command line of this tree."""
        done = subprocess.run(
            [sys.executable, "-m", "twinloop.cli", action, "--reason", reason, "--config", str(self._live.profile)],
            capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout


def rated(live: LiveSystem, answers: Mapping[str, Answer]) -> list[str]:
    """Ids of feedback given on these answers, one each."""
    with Client(live.kafka, live.topics, name="raters") as client:
        found = [
            client.rate(answer, question="any", rater=f"r-{name}", rating="up", feedback_id=f"f-{name}").id
            for name, answer in answers.items()
            if answer.receipt is not None
        ]
        client.flush(30)
    return found


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_every_service_is_upgraded_and_downgraded_under_load_and_nothing_is_lost_or_decided_otherwise(
    live: LiveSystem, counted: Callable[..., None], tmp_path: Path
) -> None:
    old = previous_tree(tmp_path / "tree")
    begun = time.monotonic()
    system = WholeSystem(live, old)
    wait_until(lambda: live.routing() is not None, seconds=60, what="the first decision")
    load = Load(live, per_s=10, deadline_ms=600_000)
    time.sleep(3.0)
    system.order("pause", "the previous version decides this")
    system.roll(ROOT, forward=True)
    system.order("resume", "this version decides that")
    feedback = rated(live, {a.query_id: a for _, a in live.accounting(load.sent).answers[:40]})
    system.order("pause", "this version again")
    system.roll(old, forward=False)
    system.order("resume", "the previous version follows what this one decided")
    system.roll(ROOT, forward=True)
    load.stop()
    found = live.settled(load, timeout_s=120)
    decisions = live.decisions()
    replayed = subprocess.run(
        [sys.executable, "-m", "twinloop.cli", "replay", "--from-log", "--config", str(live.profile)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    waits = sorted(a.answered_at - load.sent[a.query_id] for _, a in found.answers)
    counted(
        sent=found.sent, lost=len(found.lost), doubled=len(found.doubled), strange=len(found.strange),
        ended=found.kinds, dead_letters=len(live.records("dead-letters")), decisions=[d.kind for d in decisions],
        longest_wait_ms=waits[-1], median_wait_ms=waits[len(waits) // 2], seconds=round(time.monotonic() - begun),
    )  # fmt: skip
    assert found.is_whole
    assert live.records("dead-letters") == []
    assert [decision.epoch for decision in decisions] == list(range(1, len(decisions) + 1))
    assert [d.kind for d in decisions] == ["genesis", "pause", "resume", "pause", "resume"]
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    statuses = [decode(record, FeedbackStatus).feedback_id for record in live.records("feedback.status")]
    assert sorted(set(statuses)) == sorted(feedback)
