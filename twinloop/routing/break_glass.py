"""A rollback without Kafka and gatekeeper: the routing state an operator signs by hand; adopted afterwards."""

from __future__ import annotations

from schemas.event import Sha256
from schemas.routing import RoutingState
from twinloop.errors import CommandRefused

_MOST_REVOKED = 64
"""Routing states name the newest revoked releases, as the gatekeeper's do."""


def choose_target(state: RoutingState, wanted: Sha256 | None) -> Sha256:
    """The release to restore: the one named, or the previous one; raises CommandRefused where it may not serve."""
    target = wanted or state.previous
    if target is None:
        raise CommandRefused("the routing state names no previous release: name the one to restore")
    if target == state.active_release:
        raise CommandRefused(f"{target[:8]} is active already")
    if target in state.revoked:
        raise CommandRefused(f"{target[:8]} is revoked")
    return target


def rolled_back(
    state: RoutingState, *, target: Sha256, rules: Sha256, actor: str, decision_id: str, at_ms: int
) -> RoutingState:
    """The next epoch with `target` active in the other slot, unsigned.

    What a gatekeeper's rollback writes: the release left is revoked, a canary and mirrored traffic end, phase steady.
    `rules` is the digest of the target's router rules.
    """
    left = state.active_release
    releases = {**state.releases, state.shadow: target}
    return RoutingState(
        incarnation=state.incarnation,
        epoch=state.epoch + 1,
        active=state.shadow,
        releases=releases,
        previous=None,
        rules={target: rules, left: state.rules[left]},
        revoked=(*(each for each in state.revoked if each != left), left)[-_MOST_REVOKED:],
        phase="steady",
        decision_id=decision_id,
        changed_at=at_ms,
        changed_by=actor,
    )
