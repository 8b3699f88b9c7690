"""A good candidate on a starved machine: its answers come late during the canary. The p95 gate ends it.

The shadow's worker is slowed from outside, by stopping its process for most of every period, as a machine without
processor time or memory would: nothing in the services knows of it.
"""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType

from schemas.event import Arm
from twinloop.demo.scenarios.drill import Drill
from twinloop.stack.child_process import ChildProcess

STOPPED_S, RUNNING_S = 0.30, 0.08
"""Of each period the process is stopped for the first and runs for the second."""
CANARY_WITHIN_S, ENDED_WITHIN_S = 150.0, 150.0


def play(drill: Drill) -> None:
    genesis = drill.log.wait(lambda each: each.kind == "genesis", what="the first decision", timeout_s=30)
    documents = [lesson.document for lesson in drill.material.lessons if lesson.document is not None]
    drill.step(f"{len(documents)} new documents make a good candidate")
    for document in documents:
        drill.traffic.client.change(document)
    drill.traffic.client.flush()
    drill.teacher.train()
    drill.log.wait(
        lambda each: each.kind != "stage",
        what="the end of the exam",
        timeout_s=CANARY_WITHIN_S,
        after=genesis.epoch,
    )
    drill.traffic.per_second = drill.material.traffic_per_second
    canary = drill.log.wait(
        lambda each: each.kind in ("canary", "reject", "abort"),
        what="the candidate's canary",
        timeout_s=CANARY_WITHIN_S,
        after=genesis.epoch,
    )
    drill.find("the candidate passes its exam", seen=canary.line, held=canary.kind == "canary")
    if canary.kind != "canary":
        return

    worker = drill.installation.supervisor.children[f"inference-{canary.state.shadow}-0"]
    drill.step(f"{worker.name} stands still for {STOPPED_S * 1000:.0f} ms of every {_PERIOD_MS:.0f} ms")
    began = time.monotonic()
    with Starved(worker):
        ended = drill.log.wait(
            lambda each: each.kind in ("abort", "promote", "rollback"),
            what="the end of the canary",
            timeout_s=ENDED_WITHIN_S,
            after=canary.epoch,
        )
    took_s = time.monotonic() - began
    drill.find(
        "the p95 gate ends the canary",
        seen=f"{ended.line} ({took_s:.0f} s after the slowing began)",
        held=ended.kind == "abort" and "p95" in (ended.reason or ""),
    )
    drill.find(
        "the release from before serves on, and the candidate is revoked",
        seen=f"{ended.state.active_release[:8]} serves; revoked: {', '.join(r[:8] for r in ended.state.revoked)}",
        held=ended.state.active_release == genesis.state.active_release
        and canary.release in ended.state.revoked,
    )
    active, shadow = _p95_ms(drill, "active", canary.epoch), _p95_ms(drill, "shadow", canary.epoch)
    drill.find(
        "only the canary's users waited",
        seen=f"p95 of the active release {active:.0f} ms, of the shadow {shadow:.0f} ms",
        held=active + 50 < shadow,
    )


class Starved:
    """Slows a process while the block runs; it runs freely afterwards, whatever happened."""

    def __init__(self, process: ChildProcess) -> None:
        self._process = process
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="starving", daemon=True)

    def __enter__(self) -> Starved:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self._process.signal(signal.SIGSTOP)
                self._ending.wait(STOPPED_S)
                self._process.signal(signal.SIGCONT)
                self._ending.wait(RUNNING_S)
        finally:
            self._process.signal(signal.SIGCONT)


def _p95_ms(drill: Drill, arm: Arm, since_epoch: int) -> float:
    """95th percentile from assignment to answer of the users' answers of one arm since an epoch."""
    took = sorted(
        answer.timings.total_ms
        for answer in list(drill.traffic.answers.values())
        if answer.arm == arm and (answer.epoch or 0) >= since_epoch and answer.timings is not None
    )
    return took[int(0.95 * (len(took) - 1))] if took else 0.0


_PERIOD_MS = (STOPPED_S + RUNNING_S) * 1000
