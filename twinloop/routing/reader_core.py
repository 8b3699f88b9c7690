"""How a reader of the routing key moves between FRESH, HOLD and STATIC: values in, values out.

FRESH: the store answered this time. HOLD: it did not; nothing may be decided, Kafka keeps the queries.
STATIC: it has not answered for `hold_max`; decide by the last known good state, marked unconfirmed (AWS calls this
static stability). A state that may not be installed counts as no answer.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.routing import RoutingState
from twinloop.routing.install_rules import may_install

Mode = Literal["fresh", "hold", "static"]
NoAnswer = Literal[
    "silent",  # no answer within the time-out
    "denied",  # the store refuses this user
    "missing_key",
    "lower_epoch",
    "other_incarnation",
    "same_epoch_differs",
    "malformed",
    "bad_signature",
]


class ReaderPolicy(msgspec.Struct, frozen=True):
    """How long to hold before deciding by the last known good state, in seconds of the monotonic clock."""

    hold_max_s: float = 2.0


class ReaderCore(msgspec.Struct, frozen=True):
    """All a reader remembers; `silent_since` is the monotonic time of the first read without an answer."""

    state: RoutingState | None = None
    is_from_disk: bool = False
    """The state was left by an earlier process and the store has confirmed nothing yet."""
    mode: Mode = "hold"
    silent_since: float | None = None
    problem: NoAnswer | None = None


def observe_state(core: ReaderCore, state: RoutingState, *, now: float, policy: ReaderPolicy) -> ReaderCore:
    """After an answer whose signature held: installed and FRESH, or refused by the install rules."""
    current = core.state
    if core.is_from_disk and current is not None and current.incarnation != state.incarnation:
        # A new life of the decision log began while no process ran; only a running reader can tell a foreign one.
        current = None
    refusal = may_install(current, state)
    if refusal is not None:
        return observe_no_answer(core, refusal, now=now, policy=policy)
    return ReaderCore(state=state, mode="fresh")


def observe_unchanged(core: ReaderCore) -> ReaderCore:
    """After an answer of the very bytes that are installed."""
    return core if core.mode == "fresh" else ReaderCore(state=core.state, mode="fresh")


def observe_no_answer(core: ReaderCore, problem: NoAnswer, *, now: float, policy: ReaderPolicy) -> ReaderCore:
    """After silence or an answer nobody may install; without any known state it holds for ever."""
    since = now if core.silent_since is None else core.silent_since
    has_waited = now - since >= policy.hold_max_s
    mode: Mode = "static" if has_waited and core.state is not None else "hold"
    return ReaderCore(core.state, core.is_from_disk, mode, since, problem)
