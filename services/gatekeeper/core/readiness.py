"""Who is alive, and who has a release ready."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.event import SLOTS, Sha256, Slot
from schemas.gate_inputs import ReadinessSeen
from services.gatekeeper.core.policy import ReadinessPolicy
from services.gatekeeper.core.state import JudgeState, Worker
from services.gatekeeper.core.turn import Turn


def on_readiness(turn: Turn, seen: ReadinessSeen) -> None:
    """Remember what a process last said; one that is stopping is forgotten at once."""
    workers = dict(turn.state.workers)
    if seen.stopping:
        workers.pop(seen.worker, None)
    else:
        workers[seen.worker] = Worker(
            service=seen.service,
            slot=seen.slot,
            epoch=seen.epoch,
            releases=seen.releases,
            problems=seen.problems,
            seen_at=turn.state.now,
        )
    turn.set(workers=workers)


@dataclass(frozen=True)
class Preparedness:
    """How far the workers are with one release."""

    ready: int
    live: int
    is_enough: bool
    silent: tuple[str, ...]
    """Live workers that do not have it, each with the problem it named, if any."""
    is_hopeless: bool
    """So many workers named a problem with this release that the share cannot be reached."""

    @property
    def line(self) -> str:
        waits = f"; waiting for {', '.join(self.silent[:8])}" if self.silent else ""
        return f"{self.ready} of {self.live} live workers ready{waits}"


def preparedness(state: JudgeState, policy: ReadinessPolicy, release: Sha256) -> Preparedness:
    """Count the live inference workers of both slots that can answer with `release` at once."""
    live = {
        name: worker
        for name, worker in sorted(state.workers.items())
        if worker.service == "inference" and state.now - worker.seen_at <= policy.live_s * 1000
    }
    ready = {name for name, worker in live.items() if release in worker.releases}
    silent = tuple(_named(name, worker, release) for name, worker in live.items() if name not in ready)
    broken = sum(1 for worker in live.values() if any(release[:12] in text for text in worker.problems))
    each_slot = all(
        sum(1 for name in ready if live[name].slot == slot) >= policy.min_workers for slot in SLOTS
    )
    wanted = policy.share * len(live)
    return Preparedness(
        ready=len(ready),
        live=len(live),
        is_enough=each_slot and len(ready) >= wanted,
        silent=silent,
        is_hopeless=len(live) > 0 and len(live) - broken < wanted,
    )


def ready_workers(state: JudgeState) -> dict[Slot, int]:
    """By slot: live inference workers that can answer at once with the release their slot holds."""
    routing, policy = state.routing, state.policy
    if routing is None or policy is None:
        return {}
    live_ms = policy.readiness.live_s * 1000
    return {
        slot: sum(
            worker.service == "inference"
            and worker.slot == slot
            and state.now - worker.seen_at <= live_ms
            and routing.releases[slot] in worker.releases
            for worker in state.workers.values()
        )
        for slot in SLOTS
    }


def _named(name: str, worker: Worker, release: Sha256) -> str:
    problem = next((text for text in worker.problems if release[:12] in text), "")
    return f"{name} ({problem[:120]})" if problem else name
