"""An A/B test: two releases that both served share the users, both are reported, and nothing is promoted."""

from __future__ import annotations

from typing import cast

from pydantic import JsonValue

from schemas.commands import Command
from services.gatekeeper.core.canary import salt_of, say_verdict
from services.gatekeeper.core.comparison import verdict_evidence
from services.gatekeeper.core.readiness import preparedness
from services.gatekeeper.core.rollback import NoTarget, choose_target
from services.gatekeeper.core.state import AbTest
from services.gatekeeper.core.turn import Turn, canary_of, with_shadow, without_canary
from twinloop.errors import CommandRefused
from twinloop.statistics.canary_state import CanaryState, advance
from twinloop.statistics.fixed_n import counted_units, report_of
from twinloop.statistics.gates import judge
from twinloop.statistics.latency import dense
from twinloop.statistics.tally import WindowTally
from twinloop.statistics.verdict import Verdict, VerdictKind

LARGEST_SHARE = 1000
"""Basis points: no release that is not active answers more than a tenth of the users."""
FEWEST_UNITS = 100


def start_ab_test(turn: Turn, command: Command) -> str:
    """Send a share of users to another release that served; raises CommandRefused saying why not."""
    state, policy, routing = turn.state, turn.policy, turn.routing
    if state.stage is not None:
        raise CommandRefused(f"a stage is running: {state.stage.name}; one release is tried at a time")
    if state.paused_by is not None:
        raise CommandRefused(f"paused by {state.paused_by}")
    if state.alarm is not None:
        raise CommandRefused(f"the active release is not healthy: {state.alarm}")
    release = choose_target(state, command.release)
    if isinstance(release, NoTarget):
        raise CommandRefused(f"nothing to compare with: {release.why}")
    if release not in routing.resident:
        raise CommandRefused(f"{release[:8]} is not resident; only what served last is, that is `previous`")
    ready = preparedness(state, policy.readiness, release)
    if not ready.is_enough:
        raise CommandRefused(f"{release[:8]} is not ready: {ready.line}")
    share = _whole(command, "basis_points", LARGEST_SHARE, lowest=1, highest=LARGEST_SHARE)
    most = policy.canary.max_shadow
    units = _whole(
        command, "units", min(max(policy.canary.min_shadow, FEWEST_UNITS), most), FEWEST_UNITS, most
    )
    salt = salt_of(routing.incarnation, routing.epoch + 1)
    turn.set(
        stage=AbTest(
            release=release,
            since=state.now,
            units=units,
            first_epoch=routing.epoch + 1,
            memory=CanaryState.begin(policy.canary, now=state.now / 1000, baseline=dense(state.baseline)),
        )
    )
    turn.decide(
        "ab_start",
        routing=with_shadow(without_canary(routing), release).model_copy(
            update={"canary": canary_of(routing, basis_points=share, salt=salt)}
        ),
        reason="manual",
        line=(
            f"A/B against {routing.active_release[:8]}: {share / 100:g} % of subjects, ends after {units} of its "
            f"units; by {command.actor}: {command.reason}"
        )[:900],
        release=release,
        evidence={"active": routing.active_release, "basis_points": share, "units": units},
    )
    return f"{release[:8]} answers {share / 100:g} %"


def advance_ab_test(turn: Turn, window: WindowTally) -> None:
    """Fold one whole window into the comparison."""
    stage = turn.state.stage
    if not isinstance(stage, AbTest) or window.epoch < stage.first_epoch:
        return
    if window.classifiers:
        known = stage.classifier or window.classifiers[0]
        if window.classifiers != (known,):
            names = ", ".join(window.classifiers)
            end_ab_test(turn, stage, "classifier_changed", f"labels came from {names} instead of {known}")
            return
        stage = stage.model_copy(update={"classifier": known})
    memory = advance(turn.policy.canary, stage.memory, window, turn.state.now / 1000)
    turn.set(stage=stage.model_copy(update={"memory": memory}))


def watch_ab_test(turn: Turn) -> None:
    """End it on harm, on data that cannot be believed, or at the size that was fixed in advance; else tell."""
    stage = turn.state.stage
    if not isinstance(stage, AbTest):
        return
    verdict = _verdict(turn, stage)
    counted = counted_units(stage.memory)
    age_s = (turn.state.now - stage.since) / 1000
    if verdict.kind is VerdictKind.ABORT and verdict.reason_code != "inconclusive":
        end_ab_test(turn, stage, verdict.reason_code, verdict.summary)
    elif counted >= stage.units:
        end_ab_test(turn, stage, "ab_finished", _summary(verdict))
    elif age_s >= turn.policy.canary.max_duration_s:
        end_ab_test(turn, stage, "ab_timeout", f"only {counted} of {stage.units} units; {_summary(verdict)}")
    else:
        say_verdict(
            turn,
            stage.release,
            verdict,
            label=f"A/B {counted} of {stage.units} units",
            needed=f"{stage.units - counted} more units",
        )


def end_ab_test(turn: Turn, stage: AbTest, reason: str, line: str) -> None:
    """The active release answers everybody again; both reports go into the log."""
    verdict = _verdict(turn, stage)
    fixed_n = report_of(stage.memory)
    is_planned = counted_units(stage.memory) >= stage.units
    routing = turn.routing
    turn.set(stage=None)
    turn.decide(
        "ab_end",
        routing=with_shadow(without_canary(routing), routing.previous or routing.active_release),
        reason=reason,
        line=f"{line}; {fixed_n.line}" if fixed_n is not None else line,
        release=stage.release,
        evidence={
            "active": routing.active_release,
            "verdict": verdict_evidence(turn.policy, verdict),
            "fixed_n": None if fixed_n is None else cast(JsonValue, fixed_n.to_json()),
            "units": stage.units,
            "units_reached": is_planned,
            **({"classifier": stage.classifier} if stage.classifier else {}),
        },
    )


def _verdict(turn: Turn, stage: AbTest) -> Verdict:
    return judge(turn.policy.canary, stage.memory, turn.state.now / 1000)


def _summary(verdict: Verdict) -> str:
    return "; ".join(gate.line for gate in verdict.gates if gate.kind == "promote")


def _whole(command: Command, name: str, default: int, lowest: int, highest: int) -> int:
    value = command.parameters.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise CommandRefused(f"parameters.{name} must be a whole number from {lowest} to {highest}")
    return value
