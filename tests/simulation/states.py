"""The states a lawful gatekeeper may write, drawn one after the other."""

from __future__ import annotations

from functools import cache
from random import Random

from schemas.event import Slot
from schemas.routing import Canary, Mirror, RoutingState

INCARNATION = "0123456789abcdef" * 2
RULES = "d" * 64


@cache
def release(number: int) -> str:
    return f"{number:064x}"


@cache
def genesis() -> RoutingState:
    first = release(0)
    return _state(1, "blue", {"blue": first, "green": first}, previous=None, revoked=())


class Gatekeeper:
    """Keeps the newest logged state and draws the next; what was logged is never taken back."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._releases = 0
        self.state = genesis()

    def next_state(self) -> RoutingState:
        """Stage, canary, ramp, mirror, promote, abort or rollback, whatever may follow the newest state."""
        state, draw = self.state, self._random.random()
        if state.shadow_release == state.active_release or state.shadow_release in state.revoked:
            found = self._stage(state)
        elif state.canary is not None and draw < 0.35:
            found = self._abort(state)
        elif draw < 0.6:
            found = self._swap(state)
        elif draw < 0.7:
            found = self._stage(state)
        else:
            found = self._share(state)
        self.state = found
        return found

    def restored(self) -> RoutingState:
        """The newest state once more, under the next epoch."""
        self.state = self.state.model_copy(update={"epoch": self.state.epoch + 1})
        return self.state

    def _stage(self, state: RoutingState) -> RoutingState:
        self._releases += 1
        releases = {**state.releases, state.shadow: release(self._releases)}
        return _state(state.epoch + 1, state.active, releases, previous=state.previous, revoked=state.revoked)

    def _share(self, state: RoutingState) -> RoutingState:
        salt = f"salt-of-epoch-{state.epoch}-----"
        share = self._random.choice((100, 500, 1000))
        if state.canary is not None:
            salt, share = state.canary.salt, max(share, state.canary.basis_points)
        canary = Canary(slot=state.shadow, basis_points=share, salt=salt)
        mirror = (
            Mirror(slot=state.shadow, basis_points=5000, salt=salt) if self._random.random() < 0.3 else None
        )
        return state.model_copy(update={"epoch": state.epoch + 1, "canary": canary, "mirror": mirror})

    def _abort(self, state: RoutingState) -> RoutingState:
        failed = state.shadow_release
        previous = None if state.previous == failed else state.previous
        releases = {**state.releases, state.shadow: previous or state.active_release}
        revoked = tuple(dict.fromkeys((*state.revoked, failed)))
        return _state(state.epoch + 1, state.active, releases, previous=previous, revoked=revoked)

    def _swap(self, state: RoutingState) -> RoutingState:
        """A promote, or a rollback that revokes what is left."""
        left = state.active_release
        is_rollback = self._random.random() < 0.4
        revoked = tuple(dict.fromkeys((*state.revoked, left))) if is_rollback else state.revoked
        return _state(
            state.epoch + 1,
            state.shadow,
            state.releases,
            previous=None if is_rollback else left,
            revoked=revoked,
        )


def _state(
    epoch: int,
    active: Slot,
    releases: dict[Slot, str],
    *,
    previous: str | None,
    revoked: tuple[str, ...],
) -> RoutingState:
    named = dict.fromkeys([*releases.values(), *([previous] if previous else [])], RULES)
    return RoutingState(
        incarnation=INCARNATION,
        epoch=epoch,
        active=active,
        releases=releases,
        previous=previous,
        rules=named,
        revoked=revoked,
        phase="steady",
        decision_id=f"decision-{epoch}",
        changed_at=0,
        changed_by="simulator",
    )
