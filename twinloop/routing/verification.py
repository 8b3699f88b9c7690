"""Which signatures make a routing state worth believing."""

from __future__ import annotations

from collections.abc import Callable

from schemas.routing import RoutingState
from twinloop.errors import SignatureError
from twinloop.signing import KeyRing, Role, verify_document

Verify = Callable[[RoutingState], None]
"""Raises SignatureError unless the state may be believed."""

WRITERS: tuple[Role, ...] = ("gatekeeper", "break-glass")


def state_verifier(ring: KeyRing) -> Verify:
    """A check that the state was signed by a key of the ring that may write routing states."""

    def verify(state: RoutingState) -> None:
        roles = ring.roles_of(state.key_id)
        role = next((role for role in WRITERS if role in roles), None)
        if role is None:
            raise SignatureError(
                f"key {state.key_id!r} may not write routing states; its roles: {sorted(roles)}"
            )
        verify_document(state, ring, role=role)

    return verify
