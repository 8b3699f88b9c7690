"""Mirrored traffic: a candidate answers copies before any user meets it, and the old slot answers copies in the bake.

What is seen here can stop or hold a release. It never counts towards a promotion: the canary begins with nothing.
"""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from schemas.decisions import Progress
from services.gatekeeper.core.canary import salt_of, stage_seconds, start_canary
from services.gatekeeper.core.candidates import Outcome, end_candidate
from services.gatekeeper.core.comparison import comparison, gate_progress, spared_domains
from services.gatekeeper.core.policy import MirrorPolicy
from services.gatekeeper.core.rollback import watch_comparison
from services.gatekeeper.core.state import Bake, Candidate, Mirroring
from services.gatekeeper.core.turn import Turn, mirror_of
from twinloop.canonical import sha256_hex
from twinloop.statistics.gates import judge_harm
from twinloop.statistics.latency import dense
from twinloop.statistics.mirror import MirrorState, join
from twinloop.statistics.tally import WindowTally
from twinloop.statistics.verdict import GateRow

COVERAGE_FROM = 20
"""Copies sent before the share that came back is judged."""


def after_examination(turn: Turn, candidate: Candidate, *, qa: dict[str, Any]) -> None:
    """Mirror users' queries to the examined candidate where the policy says so, else begin its canary."""
    policy = turn.policy.mirror
    if policy is None or policy.basis_points == 0:
        start_canary(turn, candidate, qa=qa)
        return
    state, routing = turn.state, turn.routing
    memory = MirrorState.begin(
        turn.policy.mirror_harm, "copies", now=state.now / 1000, baseline=dense(state.baseline)
    )
    turn.set(
        stage=Mirroring(
            candidate=candidate, since=state.now, first_epoch=routing.epoch + 1, memory=memory, qa=qa
        )
    )
    salt = sha256_hex(f"{salt_of(routing.incarnation, routing.epoch + 1)}:mirror".encode())
    turn.decide(
        "mirror",
        routing=routing.model_copy(
            update={"mirror": mirror_of(routing, basis_points=policy.basis_points, salt=salt)}
        ),
        reason="qa_passed",
        line=f"QA passed, copies of the queries of {policy.basis_points / 100:g} % of subjects, whose answers nobody "
        f"sees: {'; '.join(row['line'] for row in qa['rows'])}",
        release=candidate.release,
        evidence={"qa": qa},
    )


def take_users(turn: Turn, window: WindowTally) -> None:
    """Keep one whole window of users' queries for the copies of the same time."""
    memory = _memory(turn, window)
    if memory is not None:
        _join(turn, memory.with_users(window))


def take_copies(turn: Turn, window: WindowTally) -> None:
    """Keep one whole window of copies for the users of the same time."""
    memory = _memory(turn, window)
    if memory is not None:
        _join(turn, memory.with_copies(window))


def watch_mirror(turn: Turn) -> None:
    """Judge now: stop, hold, go on to the canary, or swap back."""
    stage = turn.state.stage
    if isinstance(stage, Mirroring):
        _watch_candidate(turn, stage)
    elif isinstance(stage, Bake):
        watch_comparison(turn, stage)


def _memory(turn: Turn, window: WindowTally) -> MirrorState | None:
    """The evidence a window belongs to, if any."""
    stage = turn.state.stage
    if isinstance(stage, Mirroring):
        return stage.memory if window.epoch >= stage.first_epoch else None
    if isinstance(stage, Bake):
        return stage.mirror if window.epoch >= turn.state.active_since_epoch else None
    return None


def _join(turn: Turn, memory: MirrorState) -> None:
    state, stage = turn.state, turn.state.stage
    until = min(state.merger.reached, state.copies.reached)
    seconds = stage_seconds(state, stage) if isinstance(stage, Mirroring) else state.now / 1000
    joined = join(turn.policy.mirror_harm, memory, until, seconds)
    if isinstance(stage, Mirroring):
        turn.set(stage=stage.model_copy(update={"memory": joined}))
    elif isinstance(stage, Bake):
        turn.set(stage=stage.model_copy(update={"mirror": joined}))


def _watch_candidate(turn: Turn, stage: Mirroring) -> None:
    policy = turn.policy.mirror
    if policy is None:
        raise RuntimeError(
            "a candidate is mirrored to, but the policy in force says nothing of mirrored traffic"
        )
    seen = stage.memory
    if seen.memory.abort_gate is not None:
        _, harm = _judged(turn, stage)
        _end(turn, stage, "failed", code=seen.memory.abort_gate, line=harm.line if harm else "")
        return
    trouble = _trouble(turn, policy, seen)
    stage = _held(turn, stage, None if trouble is None else trouble[0])
    waited_s = stage_seconds(turn.state, stage) - stage.since / 1000
    if trouble is not None:
        code, why = trouble
        held_s = (turn.state.now - (stage.held_since or turn.state.now)) / 1000
        line = f"{why}; held for {held_s:.0f} s"
        if held_s > policy.hold_s:
            _end(turn, stage, "returned", code=code, line=line)
        else:
            _say(turn, stage, line, needed="copies that come back, labelled")
    elif seen.units >= policy.min_units and waited_s >= policy.min_s:
        if turn.state.paused_by is not None:
            needed = "resume: the canary is due, but staging is paused"
            _say(turn, stage, seen.coverage_text, needed=needed)
        else:
            mirrored = comparison(turn.policy, seen, _judged(turn, stage)[0])
            start_canary(turn, stage.candidate, qa=stage.qa, mirrored=mirrored)
    elif waited_s >= policy.max_s:
        code = "traffic" if seen.sent else "no_copies"
        line = f"{seen.coverage_text} in {waited_s:.0f} s, {policy.min_units} keys are asked for"
        _end(turn, stage, "returned", code=code, line=line)
    else:
        _say(turn, stage, seen.coverage_text, needed=_needed(policy, seen, waited_s))


def _judged(turn: Turn, stage: Mirroring) -> tuple[tuple[GateRow, ...], GateRow | None]:
    """Every gate, worked out only where a decision or a progress line needs them: it takes milliseconds."""
    return judge_harm(turn.policy.mirror_harm, stage.memory.memory, subject="copies")


def _trouble(turn: Turn, policy: MirrorPolicy, seen: MirrorState) -> tuple[str, str] | None:
    """(code, words) of why the copies' answers cannot be believed to be there; None where they can."""
    if seen.sent and seen.memory.silent_at is not None:
        return "silent", f"the shadow answers no copy, {seen.coverage_text}"
    if seen.sent >= COVERAGE_FROM and seen.coverage is not None and seen.coverage < policy.coverage_min:
        return "coverage", f"only {seen.coverage_text}, less than {policy.coverage_min:.0%}"
    if seen.memory.coverage_bad_at is not None:
        least = turn.policy.canary.label_coverage
        return "labels", f"answers lack outcome, latency or label, {least:.0%} must have them"
    return None


def _held(turn: Turn, stage: Mirroring, code: str | None) -> Mirroring:
    """The stage with the time since which this reason holds it."""
    if code == stage.held_by:
        return stage
    since = None if code is None else turn.state.now
    held = stage.model_copy(update={"held_by": code, "held_since": since})
    turn.set(stage=held)
    return held


def _end(turn: Turn, stage: Mirroring, outcome: Outcome, *, code: str, line: str) -> None:
    rows, _ = _judged(turn, stage)
    evidence: dict[str, JsonValue] = {"mirror": comparison(turn.policy, stage.memory, rows), "qa": stage.qa}
    spared = spared_domains(rows) if outcome == "failed" and turn.policy.promote.partial else None
    if spared is not None:
        evidence, line = {**evidence, **spared.evidence}, f"{line}; {spared.line}"
    end_candidate(
        turn,
        stage.candidate,
        outcome,
        kind="abort",
        reason=f"mirror:{code}",
        line=f"before any user met it: {line}",
        evidence=evidence,
    )


def _needed(policy: MirrorPolicy, seen: MirrorState, waited_s: float) -> str:
    more = max(0, policy.min_units - seen.units)
    return f"{more} more keys whose copies came back" if more else f"{policy.min_s - waited_s:.0f} s more"


def _say(turn: Turn, stage: Mirroring, line: str, *, needed: str) -> None:
    state, routing = turn.state, turn.routing
    if not turn.is_progress_due:
        return
    share = routing.mirror.basis_points if routing.mirror else 0
    turn.progress(
        Progress(
            at=state.now,
            epoch=routing.epoch,
            phase="qa",
            release=stage.candidate.release,
            line=f"mirror {share / 100:g} %: {line}"[:1000],
            gates=gate_progress(turn.policy, _judged(turn, stage)[0]),
            needed=needed[:500],
        )
    )
