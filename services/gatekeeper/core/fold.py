"""The judge: `gate-inputs` in, decisions out. Pure: the same records give the same bytes, today and in a year."""

from __future__ import annotations

from schemas.gate_inputs import (
    Applied,
    BlobsChecked,
    CommandSeen,
    FeedbackCounts,
    GateInput,
    Genesis,
    PolicyChange,
    ProbesSent,
    ProposalSeen,
    QaResults,
    ReadinessSeen,
    RedisSeen,
    Tally,
    Tick,
)
from schemas.routing import RoutingState
from services.gatekeeper.core.ab_test import end_ab_test, watch_ab_test
from services.gatekeeper.core.canary import on_blobs_checked, watch_canary
from services.gatekeeper.core.candidates import end_candidate, on_proposal, stage_next
from services.gatekeeper.core.effects import CheckBlobs, Duty, Effect
from services.gatekeeper.core.examination import (
    on_probes_sent,
    on_qa_results,
    watch_examining,
    watch_preparing,
)
from services.gatekeeper.core.forcing import watch_forcing
from services.gatekeeper.core.guardrail import on_ratings
from services.gatekeeper.core.mirroring import watch_mirror
from services.gatekeeper.core.orders import on_command
from services.gatekeeper.core.policy import read_policy
from services.gatekeeper.core.readiness import on_readiness
from services.gatekeeper.core.redis_repair import on_redis_seen
from services.gatekeeper.core.rollback import watch_bake, watch_returning
from services.gatekeeper.core.state import (
    AbTest,
    Bake,
    CanaryRun,
    Card,
    Examining,
    Forcing,
    JudgeState,
    Mirroring,
    Preparing,
    Returning,
)
from services.gatekeeper.core.tallies import on_tally
from services.gatekeeper.core.turn import CHANGED_BY, Turn, probes_of
from twinloop.statistics.tally import TallyMerger

FORGET_WORKER_MS = 3_600_000
"""Workers silent for an hour are forgotten: names of replaced ones would pile up."""


def fold(state: JudgeState, record: GateInput, offset: int) -> tuple[JudgeState, tuple[Effect, ...]]:
    """The state after one record of `gate-inputs`, and what is to be done about it.

    Records must come in offset order from the first one (or from the offset after `state.offset`); one that was
    folded already changes nothing. Raises ConfigError on a logged policy that this software cannot read.
    """
    if offset <= state.offset:
        return state, ()
    turn = Turn(state, offset)
    body = record.body
    if isinstance(body, PolicyChange):
        _on_policy(turn, body)
    elif isinstance(body, Genesis):
        _on_genesis(turn, body)
    elif isinstance(body, ReadinessSeen):
        on_readiness(turn, body)
    elif isinstance(body, Tick):
        _on_tick(turn, body)
    elif turn.state.routing is not None:
        _on_fact(turn, body)
    if turn.state.routing is not None:
        _between_stages(turn)
    return turn.state, tuple(turn.effects)


def duties(state: JudgeState) -> tuple[Duty, ...]:
    """What the edge must have under way in this state: the effects that a restart has to begin again."""
    stage = state.stage
    if isinstance(stage, Examining):
        return (probes_of(state, stage),)
    is_checking = isinstance(stage, Forcing) or (
        isinstance(stage, CanaryRun) and stage.checking_since is not None
    )
    if is_checking and state.routing is not None:
        return (CheckBlobs(state.routing.active_release, state.routing.epoch),)
    return ()


def _on_fact(
    turn: Turn,
    body: Tally
    | CommandSeen
    | ProposalSeen
    | QaResults
    | ProbesSent
    | BlobsChecked
    | RedisSeen
    | Applied
    | FeedbackCounts,
) -> None:
    if isinstance(body, Tally):
        on_tally(turn, body)
    elif isinstance(body, CommandSeen):
        on_command(turn, body)
    elif isinstance(body, ProposalSeen):
        on_proposal(turn, body)
    elif isinstance(body, QaResults):
        on_qa_results(turn, body)
    elif isinstance(body, ProbesSent):
        on_probes_sent(turn, body)
    elif isinstance(body, BlobsChecked):
        on_blobs_checked(turn, body)
    elif isinstance(body, RedisSeen):
        on_redis_seen(turn, body)
    elif isinstance(body, Applied):
        _on_applied(turn, body)
    else:
        _on_feedback(turn, body)


def _on_policy(turn: Turn, change: PolicyChange) -> None:
    """A new policy waits until no stage runs; the first one, new software and new partitions hold at once."""
    turn.set(software=change.software)
    partitions = tuple(range(change.origin_partitions))
    if partitions != turn.state.merger.partitions:
        turn.set(merger=TallyMerger(partitions))
    policy = read_policy(change)
    turn.set(**{"policy" if turn.state.policy is None else "next_policy": policy})


def _on_genesis(turn: Turn, genesis: Genesis) -> None:
    if turn.state.routing is not None:
        return
    card = Card(rules=genesis.rules, parent=None, outcome="serving")
    turn.set(cards={genesis.release: card}, served=(genesis.release,), active_since_epoch=1)
    turn.decide(
        "genesis",
        routing=RoutingState(
            incarnation=genesis.incarnation,
            epoch=1,
            active="blue",
            releases={"blue": genesis.release, "green": genesis.release},
            previous=None,
            rules={genesis.release: genesis.rules},
            phase="steady",
            decision_id="genesis",
            changed_at=turn.state.now,
            changed_by=CHANGED_BY,
        ),
        reason="first_start",
        line=f"incarnation {genesis.incarnation} begins, both slots on this release",
        release=genesis.release,
    )


def _on_tick(turn: Turn, tick: Tick) -> None:
    """Time passes: it never runs backwards, and a gap during a canary means that nobody watched it."""
    before = turn.state.now
    if tick.now <= before:
        return
    state = turn.state
    turn.set(
        now=tick.now,
        nonces={nonce: expires for nonce, expires in state.nonces.items() if expires > tick.now},
        workers={n: w for n, w in state.workers.items() if tick.now - w.seen_at < FORGET_WORKER_MS},
    )
    if turn.state.routing is None:
        return
    stage = turn.state.stage
    gap_s = (tick.now - before) / 1000
    if isinstance(stage, CanaryRun | AbTest) and gap_s > turn.policy.watch.max_gap_s:
        _end_unwatched(turn, stage, gap_s)
        return
    _watch_stage(turn)


def _end_unwatched(turn: Turn, stage: CanaryRun | AbTest, gap_s: float) -> None:
    line = f"nobody watched for {gap_s:.1f} s, longer than {turn.policy.watch.max_gap_s:g} s"
    if isinstance(stage, AbTest):
        end_ab_test(turn, stage, "unwatched", line)
        return
    end_candidate(
        turn,
        stage.candidate,
        "returned",
        kind="abort",
        reason="unwatched",
        line=line,
        evidence={"gap_s": gap_s},
    )


def _watch_stage(turn: Turn) -> None:
    stage = turn.state.stage
    if isinstance(stage, Preparing):
        watch_preparing(turn, stage)
    elif isinstance(stage, Examining):
        watch_examining(turn)
    elif isinstance(stage, Mirroring):
        watch_mirror(turn)
    elif isinstance(stage, CanaryRun):
        watch_canary(turn)
    elif isinstance(stage, AbTest):
        watch_ab_test(turn)
    elif isinstance(stage, Forcing):
        watch_forcing(turn, stage)
    elif isinstance(stage, Returning):
        watch_returning(turn, stage)
    elif isinstance(stage, Bake):
        watch_bake(turn, stage)


def _between_stages(turn: Turn) -> None:
    """While no stage runs a new policy takes effect and the next candidate is staged."""
    if turn.state.stage is None and turn.state.next_policy is not None:
        turn.set(policy=turn.state.next_policy, next_policy=None, triggers=None)
    stage_next(turn)


def _on_applied(turn: Turn, applied: Applied) -> None:
    if applied.result in ("installed", "present"):
        turn.set(applied_epoch=max(turn.state.applied_epoch, applied.epoch))


def _on_feedback(turn: Turn, seen: FeedbackCounts) -> None:
    total = dict(turn.state.feedback)
    for status, count in seen.counts.items():
        total[status] = total.get(status, 0) + count
    turn.set(feedback=total)
    if seen.ratings is not None:
        on_ratings(turn, seen.ratings)
        watch_canary(turn)
