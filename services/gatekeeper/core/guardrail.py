"""Users' ratings in a running canary: counted as they mature, laid over the verdict of the gates."""

from __future__ import annotations

from schemas.gate_inputs import RatingCounts, RatingWindow
from services.gatekeeper.core.policy import GatePolicy
from services.gatekeeper.core.rating_windows import RatingScope
from services.gatekeeper.core.state import CanaryRun, JudgeState
from services.gatekeeper.core.turn import Turn
from twinloop.statistics.ratings import RatedArms, RatingRule, RatingState, rate, rating_row, with_ratings
from twinloop.statistics.verdict import Verdict


def rule_of(policy: GatePolicy) -> RatingRule | None:
    """The guardrail's limits; None where the policy has none."""
    if policy.ratings is None:
        return None
    return RatingRule(
        margin=policy.ratings.margin,
        alpha=policy.ratings.alpha_abort,
        suspicion=policy.canary.alpha_abort,
        min_rated=policy.ratings.min_rated,
    )


def rating_scope(state: JudgeState) -> RatingScope | None:
    """Whose ratings the stream has to count now."""
    stage, routing = state.stage, state.routing
    if (
        not isinstance(stage, CanaryRun)
        or routing is None
        or state.policy is None
        or state.policy.ratings is None
    ):
        return None
    return RatingScope(frozenset({routing.active_release, stage.candidate.release}), stage.first_epoch)


def on_ratings(turn: Turn, window: RatingWindow) -> None:
    """Take one partition's window of matured ratings; the first one by (partition, start, epoch) counts."""
    stage, rule = turn.state.stage, rule_of(turn.policy)
    if not isinstance(stage, CanaryRun) or rule is None or window.epoch < stage.first_epoch:
        return
    counted = {counts.release: counts for counts in window.counts}
    nobody = RatingCounts(release=stage.candidate.release, rated=0, down=0.0)
    shadow = counted.get(stage.candidate.release, nobody)
    active = counted.get(turn.routing.active_release, nobody)
    after = rate(
        rule,
        stage.ratings or RatingState.begin(rule),
        partition=window.partition,
        start=window.start,
        epoch=window.epoch,
        counts=RatedArms(shadow.rated, shadow.down, active.rated, active.down),
    )
    turn.set(stage=stage.model_copy(update={"ratings": after}))


def guarded(policy: GatePolicy, stage: CanaryRun, verdict: Verdict) -> Verdict:
    """The verdict of the gates with the guardrail laid over it, where the policy has one."""
    rule = rule_of(policy)
    if rule is None:
        return verdict
    row = rating_row(rule, stage.ratings or RatingState.begin(rule))
    lasted_s = verdict.decided_at - stage.memory.started_at
    return with_ratings(verdict, row, is_over=lasted_s >= policy.canary.max_duration_s)
