"""What people may order, with which role, and what each order does."""

from __future__ import annotations

from schemas.commands import Action, Command
from schemas.gate_inputs import CommandSeen
from services.gatekeeper.core.ab_test import end_ab_test, start_ab_test
from services.gatekeeper.core.canary import ramp_to, watch_canary
from services.gatekeeper.core.candidates import end_candidate
from services.gatekeeper.core.forcing import force_promotion
from services.gatekeeper.core.readiness import preparedness
from services.gatekeeper.core.rollback import NoTarget, choose_target, roll_back
from services.gatekeeper.core.state import (
    AbTest,
    CanaryRun,
    Examining,
    ForceOrder,
    Forcing,
    Mirroring,
    Preparing,
)
from services.gatekeeper.core.turn import Turn
from twinloop.errors import CommandRefused
from twinloop.orders import WAITS_FOR_ANOTHER
from twinloop.signing import Role

ROLE_FOR: dict[Action, Role] = {
    "promote": "approver",
    "approve": "approver",
    "rollback": "operator",
    "abort": "operator",
    "pause": "operator",
    "resume": "operator",
    "jump": "operator",
    "ab_start": "operator",
    "ab_stop": "operator",
    "train": "operator",
}
"""The role a command's key must have; the trainer carries out `train`, everything else is ours."""

MAX_LIFE_MS = 24 * 3_600_000
"""No command may stay valid longer: its nonce has to be remembered until it expires."""
MAX_AHEAD_MS = 60_000
"""How far a sender's clock may be ahead of the judge's."""


def on_command(turn: Turn, seen: CommandSeen) -> None:
    """Carry out one order, or say who was refused and why; either way it is audited."""
    command = seen.command
    if 0 <= seen.source_offset <= turn.state.command_offset:
        return  # The edge read it twice after a crash.
    turn.set(command_offset=max(turn.state.command_offset, seen.source_offset))
    if seen.verdict == "allowed" and _is_for_trainer(command):
        return
    try:
        if seen.verdict == "refused":
            raise CommandRefused(seen.detail or "not allowed")
        _check_freshness(turn, command)
        turn.command = command.nonce
        detail = _carry_out(turn, command)
    except CommandRefused as refused:
        _audit(turn, command, "refused", str(refused))
    else:
        _audit(turn, command, "accepted", detail)


def _is_for_trainer(command: Command) -> bool:
    """`train`, and a pause of the training alone: the gatekeeper goes on with what it has."""
    is_pause = command.action in ("pause", "resume")
    return command.action == "train" or (is_pause and command.parameters.get("what") == "training")


def _check_freshness(turn: Turn, command: Command) -> None:
    now = turn.state.now
    if command.nonce in turn.state.nonces:
        raise CommandRefused(f"nonce {command.nonce} was used before")
    if command.expires_at <= now:
        raise CommandRefused(f"expired {(now - command.expires_at) / 1000:.0f} s ago")
    if command.issued_at > now + MAX_AHEAD_MS:
        raise CommandRefused("issued in the future; check the sender's clock")
    if command.expires_at - command.issued_at > MAX_LIFE_MS:
        raise CommandRefused("valid for more than a day; issue it again with a shorter life")
    turn.set(nonces={**turn.state.nonces, command.nonce: command.expires_at})


def _carry_out(turn: Turn, command: Command) -> str:
    action = command.action
    if action == "rollback":
        return _roll_back(turn, command)
    if action == "promote":
        return _promote(turn, command)
    if action == "abort":
        return _abort(turn, command)
    if action == "approve":
        return _approve(turn, command)
    if action == "ab_start":
        return start_ab_test(turn, command)
    if action == "ab_stop":
        return _stop_ab_test(turn, command)
    if action == "jump":
        return _jump(turn, command)
    return _pause(turn, command) if action == "pause" else _resume(turn, command)


def _roll_back(turn: Turn, command: Command) -> str:
    target = choose_target(turn.state, command.release)
    if isinstance(target, NoTarget):
        raise CommandRefused(f"cannot roll back: {target.why}")
    roll_back(turn, target, reason="manual", line=_by(command))
    return f"to {target[:8]}"


def _promote(turn: Turn, command: Command) -> str:
    stage = turn.state.stage
    if isinstance(stage, CanaryRun | Examining | Mirroring):
        _check_release(command, stage.candidate.release)
        return _force(turn, command, stage)
    if isinstance(stage, Preparing):
        waits = preparedness(turn.state, turn.policy.readiness, stage.candidate.release)
        raise CommandRefused(f"the candidate is not prepared yet: {waits.line}")
    raise CommandRefused("no candidate is staged")


def _force(turn: Turn, command: Command, stage: CanaryRun | Examining | Mirroring) -> str:
    """Past the gates; where the policy asks for two approvers, the second one's order is the one that counts."""
    release = stage.candidate.release
    first = turn.state.force_order
    if first is not None and first.release != release:
        first = None
    by, actor, detail = _by(command), command.actor, command.reason
    if turn.policy.promote.force_approvers > 1:
        if first is None:
            order = ForceOrder(
                release=release, actor=command.actor, key_id=command.key_id, detail=command.reason
            )
            turn.set(force_order=order)
            return f"{release[:8]} {WAITS_FOR_ANOTHER} to skip the gates"
        if command.actor == first.actor or command.key_id == first.key_id:
            raise CommandRefused(
                f"{first.actor} ordered it already; another approver with another key must agree"
            )
        by = f"{first.actor} and {command.actor}: {first.detail}; {command.reason}"[:400]
        actor = f"{first.actor} and {command.actor}"
        detail = f"{first.detail}; {command.reason}"
    turn.set(force_order=None)
    if isinstance(stage, Examining | Mirroring):
        force_promotion(turn, stage.candidate, by=actor, detail=detail)
        skipped = "the examination and the canary" if isinstance(stage, Examining) else "the canary"
        return f"{release[:8]} skips {skipped}"
    turn.set(stage=stage.model_copy(update={"forced_by": by}))
    watch_canary(turn)
    return f"{release[:8]} skips the gates"


def _abort(turn: Turn, command: Command) -> str:
    stage = turn.state.stage
    if isinstance(stage, AbTest):
        return _stop_ab_test(turn, command)
    if not isinstance(stage, Preparing | Examining | Mirroring | CanaryRun | Forcing):
        raise CommandRefused("no candidate is staged")
    _check_release(command, stage.candidate.release)
    is_bad = command.parameters.get("revoke") is True
    end_candidate(
        turn,
        stage.candidate,
        "failed" if is_bad else "returned",
        kind="abort",
        reason="manual",
        line=_by(command),
        evidence={"actor": command.actor},
    )
    return f"{stage.candidate.release[:8]} ended"


def _stop_ab_test(turn: Turn, command: Command) -> str:
    stage = turn.state.stage
    if not isinstance(stage, AbTest):
        raise CommandRefused("no A/B test is running")
    _check_release(command, stage.release)
    end_ab_test(turn, stage, "manual", _by(command))
    return f"the A/B test of {stage.release[:8]} ended"


def _approve(turn: Turn, command: Command) -> str:
    stage = turn.state.stage
    order = turn.state.force_order
    if (
        isinstance(stage, CanaryRun | Examining | Mirroring)
        and order
        and order.release == stage.candidate.release
    ):
        _check_release(command, stage.candidate.release)
        return _force(turn, command, stage)
    if not isinstance(stage, CanaryRun):
        raise CommandRefused("no canary is running")
    _check_release(command, stage.candidate.release)
    turn.set(stage=stage.model_copy(update={"approved_by": command.actor}))
    watch_canary(turn)
    return f"{stage.candidate.release[:8]} may be promoted once every gate is cleared"


def _jump(turn: Turn, command: Command) -> str:
    stage = turn.state.stage
    if not isinstance(stage, CanaryRun):
        raise CommandRefused("no canary is running")
    _check_release(command, stage.candidate.release)
    wanted = command.parameters.get("basis_points")
    canary = turn.routing.canary
    steps = turn.policy.ramp.basis_points
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= 1000:
        raise CommandRefused("parameters.basis_points must be a whole number from 1 to 1000")
    if canary is not None and wanted <= canary.basis_points:
        raise CommandRefused(f"the share is {canary.basis_points} already; a ramp only adds subjects")
    reached = max((index for index, share in enumerate(steps) if share <= wanted), default=0)
    ramp_to(turn, stage, step=reached, reason="manual", line=_by(command), basis_points=wanted)
    return f"{wanted / 100:g} %"


def _pause(turn: Turn, command: Command) -> str:
    if turn.state.paused_by is not None:
        raise CommandRefused(f"paused by {turn.state.paused_by} already")
    turn.set(paused_by=command.actor, paused_at=turn.state.now)
    line = f"{_by(command)}: nothing is staged, grown or promoted; aborts and rollbacks go on"
    turn.decide("pause", routing=turn.routing, reason="manual", line=line, release=None)
    return "paused"


def _resume(turn: Turn, command: Command) -> str:
    state = turn.state
    if state.paused_at is None:
        raise CommandRefused("nothing is paused")
    stage = state.stage
    if isinstance(stage, CanaryRun | Mirroring):
        paused_ms = stage.paused_ms + state.now - max(state.paused_at, stage.since)
        turn.set(stage=stage.model_copy(update={"paused_ms": paused_ms}))
    turn.set(paused_by=None, paused_at=None)
    turn.decide("resume", routing=turn.routing, reason="manual", line=_by(command), release=None)
    return "resumed"


def _check_release(command: Command, staged: str) -> None:
    if command.release is not None and command.release != staged:
        raise CommandRefused(f"{command.release[:8]} is not the staged candidate, {staged[:8]} is")


def _by(command: Command) -> str:
    return f"by {command.actor}: {command.reason}"[:400]


def _audit(turn: Turn, command: Command, result: str, detail: str) -> None:
    turn.audit(
        actor=command.actor,
        action=command.action,
        target=command.release or "",
        result=result,
        detail=f"{detail[:350]} [{command.nonce}]",
        via="api" if command.parameters.get("via") == "api" else "cli",
    )
