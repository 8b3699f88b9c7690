"""Routing states built by hand for the tests of routing."""

from __future__ import annotations

from typing import Any

from schemas.routing import Canary, Mirror, RoutingState

INCARNATION = "0123456789abcdef" * 2
A, B, C = "a" * 64, "b" * 64, "c" * 64
RULES = "d" * 64
SALT = "salt-of-this-canary"


def state(epoch: int = 1, **changes: Any) -> RoutingState:
    """Blue is active with release A, green holds B."""
    releases = changes.get("releases", {"blue": A, "green": B})
    named = {*releases.values(), changes.get("previous")} - {None}
    values: dict[str, Any] = {
        "incarnation": INCARNATION,
        "epoch": epoch,
        "active": "blue",
        "releases": releases,
        "previous": None,
        "rules": dict.fromkeys(sorted(named), RULES),
        "phase": "steady",
        "decision_id": f"decision-{epoch}",
        "changed_at": 0,
        "changed_by": "test",
    }
    return RoutingState.model_validate({**values, **changes})


def canary(basis_points: int = 1000, salt: str = SALT, *, slot: str = "green") -> Canary:
    return Canary.model_validate({"slot": slot, "basis_points": basis_points, "salt": salt})


def mirror(basis_points: int = 10_000, salt: str = SALT) -> Mirror:
    return Mirror(slot="green", basis_points=basis_points, salt=salt)
