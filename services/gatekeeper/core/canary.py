"""The canary: a rising share of users, a verdict after every window, and one of promote, abort or hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from pydantic import JsonValue

from schemas.decisions import Progress
from schemas.gate_inputs import BlobsChecked
from schemas.routing import RoutingState
from services.gatekeeper.core.candidates import Outcome, end_candidate
from services.gatekeeper.core.comparison import gate_progress, spared_domains, verdict_evidence
from services.gatekeeper.core.fixed_n_gate import objection, still_needed, tested
from services.gatekeeper.core.guardrail import guarded
from services.gatekeeper.core.state import (
    Bake,
    CanaryRun,
    Candidate,
    Card,
    Forcing,
    JudgeState,
    Mirroring,
)
from services.gatekeeper.core.turn import Turn, canary_of, mirror_of, without_canary
from twinloop.canonical import sha256_hex
from twinloop.statistics.canary_state import CanaryState, advance
from twinloop.statistics.gates import judge
from twinloop.statistics.latency import dense
from twinloop.statistics.mirror import MirrorState
from twinloop.statistics.tally import WindowTally
from twinloop.statistics.triggers import TriggerState
from twinloop.statistics.verdict import Verdict, VerdictKind

HARM_REASONS = frozenset({"error_margin", "early_stop", "p95", "toxicity", "ratings"})
"""Abort reasons that speak against the candidate itself; every other one only says that nothing was shown."""


def salt_of(incarnation: str, epoch: int) -> str:
    """The salt of the canary that starts with this epoch: new for each canary, known to nobody before it."""
    return sha256_hex(f"{incarnation}:{epoch}".encode())


def start_canary(
    turn: Turn, candidate: Candidate, *, qa: dict[str, Any], mirrored: dict[str, JsonValue] | None = None
) -> None:
    """Give the examined candidate its first share of users' queries; `mirrored` is what its copies showed before."""
    state, policy, routing = turn.state, turn.policy, turn.routing
    first = policy.ramp.basis_points[0]
    salt = salt_of(routing.incarnation, routing.epoch + 1)
    turn.set(
        stage=CanaryRun(
            candidate=candidate,
            since=state.now,
            salt=salt,
            step=0,
            step_since=state.now,
            step_units=0,
            first_epoch=routing.epoch + 1,
            memory=CanaryState.begin(policy.canary, now=state.now / 1000, baseline=dense(state.baseline)),
            qa={"reason": qa["reason_code"], "lines": [row["line"] for row in qa["rows"]]},
            mirror=mirrored,
        )
    )
    copies = (
        "" if mirrored is None else f", {mirrored['copies_back']} of {mirrored['copies_sent']} copies back"
    )
    mirror_salt = sha256_hex(f"{salt}:mirror".encode())
    turn.decide(
        "canary",
        routing=routing.model_copy(
            update={
                "canary": canary_of(routing, basis_points=first, salt=salt),
                "mirror": mirror_of(routing, basis_points=policy.ramp.mirror_basis_points, salt=mirror_salt),
            }
        ),
        reason="qa_passed" if mirrored is None else "mirror_passed",
        line=f"QA passed{copies}, {first / 100:g} % of subjects: {'; '.join(row['line'] for row in qa['rows'])}",
        release=candidate.release,
        evidence={"qa": cast(JsonValue, qa), **_mirrored(mirrored)},
    )


def advance_canary(turn: Turn, window: WindowTally) -> None:
    """Fold one whole window into the canary's evidence."""
    stage = turn.state.stage
    if not isinstance(stage, CanaryRun) or window.epoch < stage.first_epoch:
        return
    if window.classifiers:
        if window.classifiers != (stage.classifier or window.classifiers[0],):
            _restart(turn, stage, window)
            return
        stage = stage.model_copy(update={"classifier": window.classifiers[0]})
    memory = advance(turn.policy.canary, stage.memory, window, stage_seconds(turn.state, stage))
    stage = stage.model_copy(update={"memory": memory})
    turn.set(stage=tested(turn.policy.promote.fixed_n, stage))


def _restart(turn: Turn, stage: CanaryRun, window: WindowTally) -> None:
    """Labels of two classifiers do not add up: what was seen so far counts for nothing, the time it took does."""
    if stage.classifier is None:
        return  # Still a mixture: such windows are left out, and a mixture that stays ends as stale.
    state, policy, routing = turn.state, turn.policy, turn.routing
    first = policy.ramp.basis_points[0]
    salt = salt_of(routing.incarnation, routing.epoch + 1)
    fresh = CanaryState.begin(policy.canary, now=state.now / 1000, baseline=stage.memory.baseline)
    names = ", ".join(window.classifiers)
    turn.set(
        stage=stage.model_copy(
            update={
                "salt": salt,
                "step": 0,
                "step_since": state.now,
                "step_units": 0,
                "first_epoch": routing.epoch + 1,
                "memory": replace(fresh, started_at=stage.memory.started_at),
                "classifier": None,
                "checking_since": None,
                "fixed_n": None,
                "ratings": None,
            }
        )
    )
    turn.decide(
        "canary",
        routing=routing.model_copy(update={"canary": canary_of(routing, basis_points=first, salt=salt)}),
        reason="classifier_changed",
        line=f"begins again at {first / 100:g} %: labels came from {names} instead of {stage.classifier}",
        release=stage.candidate.release,
        evidence={"classifier": stage.classifier, "classifiers_seen": list(window.classifiers)},
    )


def watch_canary(turn: Turn) -> None:
    """Judge now: abort, promote, ramp or hold."""
    stage = turn.state.stage
    if not isinstance(stage, CanaryRun):
        return
    verdict = _judged(turn, stage)
    if verdict.kind is VerdictKind.ABORT:
        _abort(turn, stage, verdict)
    elif stage.forced_by is None and objection(stage) is not None:
        _block(turn, stage, verdict, why=str(objection(stage)))
    elif stage.checking_since is not None:
        _watch_blob_check(turn, stage, verdict)
    elif verdict.kind is VerdictKind.PROMOTE or stage.forced_by is not None:
        _move_to_promote(turn, stage, verdict)
    elif _is_ramp_due(turn, stage, verdict):
        ramp_to(turn, stage, step=stage.step + 1, reason="step_cleared", line=verdict.summary)
    else:
        say(turn, stage, verdict, needed=_needed(verdict))


def _judged(turn: Turn, stage: CanaryRun) -> Verdict:
    policy = turn.policy
    return guarded(policy, stage, judge(policy.canary, stage.memory, stage_seconds(turn.state, stage)))


def stage_seconds(state: JudgeState, stage: CanaryRun | Mirroring) -> float:
    """The stage's own clock: it stands still while paused, so that a pause neither ages nor stales it."""
    paused_now = state.now - state.paused_at if state.paused_at is not None else 0
    return (state.now - stage.paused_ms - min(paused_now, state.now - stage.since)) / 1000


def ramp_to(
    turn: Turn, stage: CanaryRun, *, step: int, reason: str, line: str, basis_points: int | None = None
) -> None:
    """Grow the share; the salt stays, so subjects are only ever added."""
    share = basis_points or turn.policy.ramp.basis_points[step]
    turn.set(
        stage=stage.model_copy(
            update={"step": step, "step_since": turn.state.now, "step_units": stage.memory.totals.units_s}
        )
    )
    routing = turn.routing
    turn.decide(
        "ramp",
        routing=routing.model_copy(
            update={"canary": canary_of(routing, basis_points=share, salt=stage.salt)}
        ),
        reason=reason,
        line=f"{share / 100:g} % of subjects: {line}",
        release=stage.candidate.release,
        evidence={"basis_points": share, "shadow_units": stage.memory.totals.units_s},
    )


def on_blobs_checked(turn: Turn, checked: BlobsChecked) -> None:
    """The outgoing release can be restored (promote, if the evidence still holds), or it cannot (no promote)."""
    stage = turn.state.stage
    if not isinstance(stage, CanaryRun | Forcing) or checked.release != turn.routing.active_release:
        return
    if isinstance(stage, CanaryRun) and stage.checking_since is None:
        return
    if not checked.ok:
        _no_promote(turn, stage, f"the outgoing release could not be restored: {checked.detail}")
        return
    if isinstance(stage, Forcing):
        promote(
            turn, stage.candidate, reason="manual", line=f"forced by {stage.by}: {stage.detail}", evidence={}
        )
        return
    verdict = _judged(turn, stage)
    evidence: dict[str, JsonValue] = {**_evidence(turn, stage, verdict), **_approval(stage)}
    if stage.forced_by is not None:
        line = f"forced by {stage.forced_by}: {verdict.summary}"
        promote(turn, stage.candidate, reason="manual", line=line, evidence=evidence)
    elif verdict.kind is VerdictKind.PROMOTE:
        line = "; ".join(gate.line for gate in verdict.gates if gate.kind == "promote")
        promote(turn, stage.candidate, reason=verdict.reason_code, line=line, evidence=evidence)
    else:
        turn.set(stage=stage.model_copy(update={"checking_since": None}))
        watch_canary(turn)


def promote(
    turn: Turn, candidate: Candidate, *, reason: str, line: str, evidence: dict[str, JsonValue]
) -> None:
    """Shadow becomes active; the outgoing release stays in its slot as `previous`."""
    routing, state = turn.routing, turn.state
    outgoing = routing.active_release
    cards = dict(state.cards)
    cards[outgoing] = cards[outgoing].model_copy(update={"outcome": "served"})
    cards[candidate.release] = Card(rules=candidate.rules, parent=candidate.parent, outcome="serving")
    turn.set(
        stage=Bake(release=candidate.release, since=state.now, mirror=_bake_mirror(turn)),
        cards=cards,
        served=(*state.served, candidate.release),
        active_since_epoch=routing.epoch + 1,
        triggers=TriggerState.begin(turn.policy.rollback, now=state.now / 1000),
        alarm=None,
        feedback={},
    )
    turn.decide(
        "promote",
        routing=_mirrored_back(
            turn,
            without_canary(routing).model_copy(update={"active": routing.shadow, "previous": outgoing}),
        ),
        reason=reason,
        line=line,
        release=candidate.release,
        evidence={
            **evidence,
            "outgoing": outgoing,
            "feedback": "trained",
            "feedback_seen": cast(JsonValue, dict(sorted(state.feedback.items()))),
        },
    )


def _bake_mirror(turn: Turn) -> MirrorState | None:
    """Evidence of the bake, where the old slot gets copies."""
    policy, state = turn.policy, turn.state
    if policy.mirror is None or policy.mirror.bake_basis_points == 0:
        return None
    return MirrorState.begin(
        policy.mirror_harm, "users", now=state.now / 1000, baseline=dense(state.baseline)
    )


def _mirrored_back(turn: Turn, routing: RoutingState) -> RoutingState:
    """The promoted routing, with copies to the old slot where the policy asks for them."""
    policy = turn.policy.mirror
    if policy is None or policy.bake_basis_points == 0:
        return routing
    salt = sha256_hex(f"{salt_of(routing.incarnation, routing.epoch + 1)}:bake".encode())
    mirror = mirror_of(routing, basis_points=policy.bake_basis_points, salt=salt)
    return routing.model_copy(update={"mirror": mirror})


def say(turn: Turn, stage: CanaryRun, verdict: Verdict, *, needed: str) -> None:
    """A progress line with every gate, where one is due."""
    routing = turn.routing
    share = routing.canary.basis_points if routing.canary else 0
    paused = f", paused by {turn.state.paused_by}" if turn.state.paused_by else ""
    label = f"canary {share / 100:g} %{paused}"
    say_verdict(turn, stage.candidate.release, verdict, label=label, needed=needed)


def say_verdict(turn: Turn, release: str, verdict: Verdict, *, label: str, needed: str) -> None:
    """As `say`, for whatever release answers a share of users."""
    if not turn.is_progress_due:
        return
    turn.progress(
        Progress(
            at=turn.state.now,
            epoch=turn.routing.epoch,
            phase="canary",
            release=release,
            line=f"{label}: {verdict.summary}"[:1000],
            gates=gate_progress(turn.policy, verdict.gates),
            needed=needed[:500],
        )
    )


def _abort(turn: Turn, stage: CanaryRun, verdict: Verdict) -> None:
    code = verdict.reason_code
    outcome: Outcome = "failed" if code in HARM_REASONS or code.startswith("domain:") else "returned"
    evidence, line = _evidence(turn, stage, verdict), verdict.summary
    spared = spared_domains(verdict.gates) if outcome == "failed" and turn.policy.promote.partial else None
    if spared is not None:
        evidence, line = {**evidence, **spared.evidence}, f"{line}; {spared.line}"
    end_candidate(turn, stage.candidate, outcome, kind="abort", reason=code, line=line, evidence=evidence)


def _block(turn: Turn, stage: CanaryRun, verdict: Verdict, *, why: str) -> None:
    """The classical tests object: nothing is held against the candidate that the gates did not find."""
    evidence = _evidence(turn, stage, verdict)
    end_candidate(
        turn, stage.candidate, "returned", kind="abort", reason="fixed_n", line=why, evidence=evidence
    )


def _evidence(turn: Turn, stage: CanaryRun, verdict: Verdict) -> dict[str, JsonValue]:
    named: dict[str, JsonValue] = {"classifier": stage.classifier} if stage.classifier else {}
    classical: dict[str, JsonValue] = {"fixed_n": stage.fixed_n} if stage.fixed_n is not None else {}
    return {
        "verdict": verdict_evidence(turn.policy, verdict),
        "qa": stage.qa,
        **named,
        **_mirrored(stage.mirror),
        **classical,
    }


def _mirrored(found: dict[str, JsonValue] | None) -> dict[str, JsonValue]:
    return {} if found is None else {"mirror": found}


def _move_to_promote(turn: Turn, stage: CanaryRun, verdict: Verdict) -> None:
    mode = turn.policy.promote.mode
    untested = still_needed(turn.policy.promote.fixed_n, stage) if stage.forced_by is None else None
    if untested is not None:
        say(turn, stage, verdict, needed=untested)
    elif stage.forced_by is None and turn.state.paused_by is not None:
        say(turn, stage, verdict, needed="resume: every gate is cleared, but promotion is paused")
    elif stage.forced_by is None and mode == "approval" and stage.approved_by is None:
        say(turn, stage, verdict, needed="an approver: every gate is cleared")
    elif stage.forced_by is None and mode == "dry_run":
        end_candidate(
            turn,
            stage.candidate,
            "returned",
            kind="abort",
            reason="dry_run",
            line=f"would be promoted: {verdict.summary}",
            evidence=_evidence(turn, stage, verdict),
        )
    else:
        turn.set(stage=stage.model_copy(update={"checking_since": turn.state.now}))
        turn.check_blobs()


def _watch_blob_check(turn: Turn, stage: CanaryRun, verdict: Verdict) -> None:
    limit_s = turn.policy.promote.blob_check_timeout_s
    if stage.checking_since is not None and turn.state.now - stage.checking_since > limit_s * 1000:
        _no_promote(turn, stage, f"the outgoing release was not read back within {limit_s:g} s")
    else:
        say(turn, stage, verdict, needed="every blob of the outgoing release, read back and whole")


def _no_promote(turn: Turn, stage: CanaryRun | Forcing, line: str) -> None:
    end_candidate(turn, stage.candidate, "returned", kind="abort", reason="outgoing_incomplete", line=line)


def _is_ramp_due(turn: Turn, stage: CanaryRun, verdict: Verdict) -> bool:
    ramp = turn.policy.ramp
    return (
        verdict.may_ramp
        and turn.state.paused_by is None
        and stage.step + 1 < len(ramp.basis_points)
        and turn.state.now - stage.step_since >= ramp.min_step_s * 1000
        and stage.memory.totals.units_s - stage.step_units >= ramp.min_step_units
    )


def _needed(verdict: Verdict) -> str:
    missing = [gate.needed for gate in verdict.gates if gate.needed]
    if not verdict.traffic.is_met:
        more = verdict.traffic.min_shadow - verdict.traffic.n_s
        missing.append(f"still needed: {more:g} more shadow units, or a narrower interval of the error rate")
    return "; ".join(missing)


def _approval(stage: CanaryRun) -> dict[str, JsonValue]:
    return {"approved_by": stage.approved_by} if stage.approved_by else {}
