"""The worker's fence: a frozen router can act on an old epoch, so whoever answers decides once more.

Why every answerer needs it: performance measurements showed all client-side reading designs, a read per event
included, routing by the old epoch after a freeze (see also "fencing tokens", Kleppmann 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from schemas.routing import RoutingState
from twinloop.routing.assignment import Assignment, assign
from twinloop.routing.stamp import Stamp

RefusalKind = Literal["rerouted", "revoked"]


class Keep(msgspec.Struct, frozen=True, gc=False):
    """The stamped release answers."""


class Forward(msgspec.Struct, frozen=True, gc=False):
    """The query belongs elsewhere now: stamp it anew (hops + 1) and send it there."""

    assignment: Assignment


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """No answer may be made: end it as an error of this kind."""

    kind: RefusalKind


Verdict = Keep | Forward | Refuse
KEEP = Keep()


def fence(stamp: Stamp, state: RoutingState, *, subject: str, opt_out: bool, max_hops: int) -> Verdict:
    """What a worker that has read `state` does with a stamped query.

    A user's query is assigned again where the state is newer than the stamp or has revoked the stamped
    release; QA probes and mirrored copies bypass assignment, but nothing bypasses revocation.
    """
    is_revoked = stamp.release in state.revoked
    if stamp.purpose != "user":
        return Refuse("revoked") if is_revoked else KEEP
    if state.epoch <= stamp.epoch and not is_revoked:
        return KEEP
    if state.epoch < stamp.epoch:
        # Forwarding would stamp the query with an older epoch than the one it already has.
        return Refuse("revoked")
    assignment = assign(state, subject, opt_out=opt_out)
    if assignment.release == stamp.release and assignment.slot == stamp.slot:
        return KEEP
    return Forward(assignment) if stamp.hops < max_hops else Refuse("rerouted")


def is_affected(stamps: Sequence[Stamp], *, decided: RoutingState, seen: RoutingState) -> bool:
    """Whether work decided under one state may not be committed once a newer one has been read.

    A cheap, safe test for the read before the commit: any newer epoch that changes who answers, or that
    revokes a release in the batch, sends the whole batch back to be decided again.
    """
    if seen.epoch == decided.epoch:
        return False
    if any(stamp.release in seen.revoked for stamp in stamps):
        return True
    if all(stamp.purpose != "user" for stamp in stamps):
        return False
    same_shares = seen.canary == decided.canary and seen.active == decided.active
    return not (same_shares and seen.releases == decided.releases)
