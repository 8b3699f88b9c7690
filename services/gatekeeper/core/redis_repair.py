"""What happens when the routing key is not what the log says: put back, or taken into the log."""

from __future__ import annotations

from schemas.decisions import Progress
from schemas.gate_inputs import RedisSeen
from schemas.routing import RoutingState
from services.gatekeeper.core.state import Candidate, Card
from services.gatekeeper.core.turn import Turn, without_canary
from twinloop.statistics.triggers import TriggerState


def on_redis_seen(turn: Turn, seen: RedisSeen) -> None:
    """Restore what was lost or changed, adopt what an operator wrote by hand, tell people about the rest."""
    if turn.state.applied_epoch == 0:
        return  # Nothing was ever installed, so nothing was lost: genesis is still on its way.
    if turn.state.repair_epoch > turn.state.applied_epoch and seen.epoch < turn.state.repair_epoch:
        return  # The repair is decided and on its way.
    if seen.status == "break-glass" and seen.state is not None:
        is_newer = seen.state.epoch >= turn.state.applied_epoch
        if is_newer and seen.state.decision_id != turn.routing.decision_id:
            _adopt(turn, seen.state, reported=seen.reported)
    elif seen.status == "foreign":
        _tell(
            turn,
            f"the routing key belongs to another incarnation ({seen.detail}); delete it to have ours put back",
        )
    elif seen.status == "behind" and seen.epoch >= turn.state.applied_epoch:
        return  # The log moved on while this was being looked at.
    else:
        _restore(turn, seen)


def _restore(turn: Turn, seen: RedisSeen) -> None:
    found = {
        "missing": "the routing key was missing",
        "behind": f"the routing key had gone back to epoch {seen.epoch}",
        "forged": f"the routing key at epoch {seen.epoch} carried no valid signature",
    }[seen.status]
    turn.decide(
        "restore",
        routing=turn.routing,
        reason=f"redis_{seen.status}",
        line=f"{found}; the state of epoch {turn.routing.epoch} is put back",
        release=turn.routing.active_release,
        evidence={"found_epoch": seen.epoch, "reported_epoch": seen.reported},
        above=max(seen.epoch, seen.reported),
    )
    turn.set(repair_epoch=turn.routing.epoch)


def _adopt(turn: Turn, found: RoutingState, *, reported: int) -> None:
    """Whatever an operator wrote by hand is never reverted; a running candidate ends with it."""
    state = turn.state
    cards = {**{release: _unknown(rules) for release, rules in found.rules.items()}, **state.cards}
    candidate: Candidate | None = getattr(state.stage, "candidate", None)
    if candidate is not None:
        cards[candidate.release] = Card(rules=candidate.rules, parent=candidate.parent, outcome="superseded")
    active = found.active_release
    served = state.served
    if active != turn.routing.active_release:
        served = served[: served.index(active) + 1] if active in served else (*served, active)
    cards[active] = cards[active].model_copy(update={"outcome": "serving"})
    turn.set(
        stage=None,
        cards=cards,
        served=served,
        revoked=(*state.revoked, *(r for r in found.revoked if r not in state.revoked)),
        active_since_epoch=found.epoch,
        triggers=TriggerState.begin(turn.policy.rollback, now=state.now / 1000),
        alarm=None,
    )
    turn.decide(
        "adopt",
        routing=without_canary(found),
        reason="break_glass",
        line=f"epoch {found.epoch} written by {found.changed_by} with key {found.key_id} is taken into the log",
        release=active,
        evidence={"found_epoch": found.epoch, "found_decision": found.decision_id, "key_id": found.key_id},
        above=max(found.epoch, reported),
    )
    turn.set(repair_epoch=turn.routing.epoch)


def _unknown(rules: str) -> Card:
    return Card(rules=rules, parent=None, outcome="served")


def _tell(turn: Turn, line: str) -> None:
    routing = turn.routing
    turn.progress(Progress(at=turn.state.now, epoch=routing.epoch, phase=routing.phase, line=line[:1000]))
