"""Back to an earlier release: ordered by a person or by a breached limit, one write either way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from schemas.decisions import Progress
from schemas.event import Sha256
from services.gatekeeper.core.comparison import comparison
from services.gatekeeper.core.readiness import preparedness
from services.gatekeeper.core.state import Bake, Candidate, Card, JudgeState, Returning
from services.gatekeeper.core.turn import Turn, with_shadow, without_canary
from twinloop.statistics.gates import judge_harm
from twinloop.statistics.mirror import MirrorState
from twinloop.statistics.tally import WindowTally
from twinloop.statistics.triggers import TriggerState, judge_triggers, watch
from twinloop.statistics.verdict import GateRow


@dataclass(frozen=True)
class NoTarget:
    """There is nothing to roll back to, and why."""

    why: str


def choose_target(state: JudgeState, wanted: Sha256 | None) -> Sha256 | NoTarget:
    """The release a rollback restores: the one named, or the unrevoked one that served last before this."""
    routing = state.routing
    if routing is None:
        return NoTarget("nothing has served yet")
    earlier = [r for r in state.served if r != routing.active_release and r not in state.revoked]
    if wanted is None:
        return earlier[-1] if earlier else NoTarget("no unrevoked release served before the active one")
    if wanted == routing.active_release:
        return NoTarget(f"{wanted[:8]} is active already")
    if wanted in state.revoked:
        return NoTarget(f"{wanted[:8]} is revoked")
    return wanted if wanted in earlier else NoTarget(f"{wanted[:8]} never served, so it is no snapshot")


def roll_back(
    turn: Turn,
    target: Sha256,
    *,
    reason: str,
    line: str,
    evidence: Mapping[str, JsonValue] | None = None,
) -> None:
    """Restore `target` now where it is resident, or prepare it first."""
    state = turn.state
    is_resident = target in turn.routing.resident
    if is_resident or preparedness(state, turn.policy.readiness, target).is_enough:
        _write(turn, target, reason=reason, line=line, evidence=evidence)
        return
    frozen = _freeze(turn, reason)
    ended = _end_stage(turn)
    turn.set(
        stage=Returning(
            target=target, rules=state.cards[target].rules, reason=reason, detail=line[:500], since=state.now
        )
    )
    turn.decide(
        "stage",
        routing=with_shadow(without_canary(turn.routing), target),
        reason="rollback_target",
        line=f"is not resident; slot {turn.routing.shadow} prepares it before the rollback ({line})",
        release=target,
        evidence={**frozen, **ended},
    )


def watch_returning(turn: Turn, stage: Returning) -> None:
    """Write the rollback as soon as its target is ready; give it up where it cannot get ready."""
    so_far = preparedness(turn.state, turn.policy.readiness, stage.target)
    if so_far.is_enough:
        _write(turn, stage.target, reason=stage.reason, line=stage.detail)
        return
    readiness = turn.policy.readiness
    limit_s = readiness.hopeless_s if so_far.is_hopeless else readiness.timeout_s
    if turn.state.now - stage.since <= limit_s * 1000:
        turn.tell(
            f"rollback target is prepared: {so_far.line}", release=stage.target, needed="workers with it"
        )
        return
    turn.set(stage=None)
    routing = turn.routing
    turn.decide(
        "abort",
        routing=with_shadow(routing, routing.previous or routing.active_release),
        reason="rollback_target_not_ready",
        line=f"rollback given up, {routing.active_release[:8]} stays active: {so_far.line}",
        release=stage.target,
        evidence={"silent": list(so_far.silent)},
    )


def watch_triggers(turn: Turn, window: WindowTally) -> None:
    """Fold one whole window into the detectors and roll back where a limit is breached."""
    state, policy = turn.state, turn.policy.rollback
    if window.epoch < state.active_since_epoch:
        return
    now_s = state.now / 1000
    memory = watch(policy, state.triggers or TriggerState.begin(policy, now=now_s), window, now_s)
    turn.set(triggers=memory)
    verdict = judge_triggers(policy, memory, now_s)
    if not verdict.is_fired or isinstance(turn.state.stage, Returning):
        return
    fire(
        turn,
        reason=verdict.reason_code,
        line=next(row.line for row in verdict.rows if row.is_fired),
    )


def fire(turn: Turn, *, reason: str, line: str, evidence: Mapping[str, JsonValue] | None = None) -> None:
    """Roll back by itself, unless one automatic rollback just did or there is nothing to go back to."""
    state = turn.state
    cooldown_ms = turn.policy.watch.rollback_cooldown_s * 1000
    if state.rollback_at is not None and state.now - state.rollback_at < cooldown_ms:
        _alarm(turn, f"{line}; no second automatic rollback within {cooldown_ms / 1000:g} s")
        return
    target = choose_target(state, None)
    if isinstance(target, NoTarget):
        _alarm(turn, f"{line}; cannot roll back: {target.why}")
        return
    turn.set(rollback_at=state.now)
    roll_back(turn, target, reason=reason, line=line, evidence=evidence)


def watch_comparison(turn: Turn, stage: Bake) -> None:
    """The promoted release against copies that the one before it answers: a regression swaps back."""
    if stage.mirror is None or stage.mirror.memory.abort_gate is None:
        return
    rows, harm = _judge_promoted(turn, stage.mirror)
    if harm is not None:
        fire(
            turn,
            reason=f"bake:{harm.name}",
            line=f"worse than the release before it: {harm.line}",
            evidence={"mirror": comparison(turn.policy, stage.mirror, rows)},
        )


def _judge_promoted(turn: Turn, seen: MirrorState) -> tuple[tuple[GateRow, ...], GateRow | None]:
    return judge_harm(turn.policy.mirror_harm, seen.memory, subject="promoted release")


def watch_bake(turn: Turn, stage: Bake) -> None:
    """The watch after a promote ends well, or is still going on."""
    state, policy = turn.state, turn.policy
    baked_s = (state.now - stage.since) / 1000
    copies = "" if stage.mirror is None else f", old slot: {stage.mirror.coverage_text}"
    if baked_s >= policy.promote.bake_s:
        compared = (
            None
            if stage.mirror is None
            else comparison(turn.policy, stage.mirror, _judge_promoted(turn, stage.mirror)[0])
        )
        turn.set(stage=None)
        turn.decide(
            "bake_end",
            routing=turn.routing.model_copy(update={"mirror": None}),
            reason="bake_over",
            line=f"no rollback limit was breached in {baked_s:.0f} s{copies}",
            release=stage.release,
            evidence={} if compared is None else {"mirror": compared},
        )
    elif turn.is_progress_due:
        _tell(turn, f"bake {baked_s:.0f} of {policy.promote.bake_s:g} s{copies}", release=stage.release)


def _write(
    turn: Turn,
    target: Sha256,
    *,
    reason: str,
    line: str,
    evidence: Mapping[str, JsonValue] | None = None,
) -> None:
    frozen = _freeze(turn, reason)
    ended = _end_stage(turn)
    routing, state = turn.routing, turn.state
    left = routing.active_release
    place = state.served.index(target)
    served = state.served[: place + 1]
    revoked = (*state.revoked, left)
    before = [release for release in served[:-1] if release not in revoked]
    cards = dict(state.cards)
    cards[left] = cards[left].model_copy(update={"outcome": "failed"})
    cards[target] = cards[target].model_copy(update={"outcome": "serving"})
    turn.set(
        stage=None,
        served=served,
        revoked=revoked,
        cards=cards,
        active_since_epoch=routing.epoch + 1,
        triggers=TriggerState.begin(turn.policy.rollback, now=state.now / 1000),
        alarm=None,
        baseline=(),
    )
    back = without_canary(with_shadow(routing, target))
    turn.decide(
        "rollback",
        routing=back.model_copy(
            update={"active": routing.shadow, "previous": before[-1] if before else None}
        ),
        reason=reason,
        line=f"restored, {left[:8]} is revoked: {line}",
        release=target,
        evidence={"left": left, **(evidence or {}), **frozen, **ended},
    )


def _freeze(turn: Turn, reason: str) -> dict[str, JsonValue]:
    """What the trainer is told of a release that turned bad in its bake: whatever came of it is set aside."""
    stage = turn.state.stage
    if not isinstance(stage, Bake) or not turn.policy.promote.freezes_training:
        return {}
    window: dict[str, JsonValue] = {"since": stage.since, "until": turn.state.now}
    return {"freeze": {"release": stage.release, "reason": reason, **window}, "feedback": "quarantine"}


def _end_stage(turn: Turn) -> dict[str, JsonValue]:
    """A candidate that was on its way ends in the same write: its parent no longer serves."""
    stage = turn.state.stage
    candidate: Candidate | None = getattr(stage, "candidate", None)
    turn.set(stage=None)
    if candidate is None:
        return {}
    card = Card(rules=candidate.rules, parent=candidate.parent, outcome="superseded")
    turn.set(cards={**turn.state.cards, candidate.release: card})
    return {"ended_candidate": candidate.release, "outcome": "superseded", "feedback": "retrain"}


def _alarm(turn: Turn, line: str) -> None:
    if turn.state.alarm is None:
        turn.set(alarm=line[:500])
        _tell(turn, line, release=turn.routing.active_release)


def _tell(turn: Turn, line: str, *, release: Sha256) -> None:
    routing = turn.routing
    turn.progress(
        Progress(
            at=turn.state.now, epoch=routing.epoch, phase=routing.phase, release=release, line=line[:1000]
        )
    )
