"""When a routing state may take another's place in a reader's memory."""

from __future__ import annotations

from typing import Literal

from schemas.routing import RoutingState

Refusal = Literal["missing_key", "lower_epoch", "other_incarnation", "same_epoch_differs"]


def may_install(current: RoutingState | None, new: RoutingState | None) -> Refusal | None:
    """None where `new` may be installed over `current`, else the reason it may not.

    A reader that refuses keeps what it has and counts the read as no answer.
    """
    if new is None:
        return "missing_key"
    if current is None:
        return None
    if new.incarnation != current.incarnation:
        return "other_incarnation"
    if new.epoch < current.epoch:
        return "lower_epoch"
    if new.epoch == current.epoch and new != current:
        return "same_epoch_differs"
    return None
