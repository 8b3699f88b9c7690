"""The gatekeeper's hand on the routing key: install what the log decided, notice what the log does not know."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import ValidationError

from schemas.gate_inputs import Applied, RedisSeen
from schemas.routing import RoutingState
from services.gatekeeper.decision_log import Winner
from twinloop.canonical import canonical_json
from twinloop.clock import Clock
from twinloop.errors import ConfigError, SignatureError
from twinloop.routing.store import Installed, InstallMode, RoutingStore
from twinloop.signing import KeyRing, verify_document

UNPROVEN = "the store did not prove that it is durable"


@dataclass(frozen=True)
class Expected:
    """What the log knows about the routing key."""

    incarnation: str
    applied_epoch: int
    """The highest epoch known to have been installed."""
    epoch: int
    """The highest epoch decided."""
    decision_id: str
    reported: int
    """The highest epoch any reader has reported."""


class RoutingKey:
    """Reads and writes the one key; one thread only. Raises Transient where the store is silent."""

    def __init__(self, store: RoutingStore, *, ring: KeyRing, clock: Clock) -> None:
        self._store, self._ring, self._clock = store, ring, clock
        self._begun: tuple[int, int] | None = None

    def install(self, winner: Winner, *, mode: InstallMode) -> Applied:
        """The one atomic write; a key that is already there counts as `present`."""
        epoch = winner.state.epoch
        begun = self._first_attempt_us(epoch)
        result = self._store.install(canonical_json(winner.state), mode=mode)
        took_us = max(0, self._clock.now_us() - begun)
        if isinstance(result, Installed):
            detail = "" if result.durable else UNPROVEN
            return Applied(
                epoch=epoch, result="installed", started_at_us=begun, took_us=took_us, detail=detail
            )
        if result.reason == "key_exists" and result.incarnation != winner.state.incarnation:
            raise ConfigError(
                f"redis: the routing key holds epoch {result.epoch} of incarnation {result.incarnation}, but the "
                "decision log is new: use another redis.key, or delete this one if its log is gone for good"
            )
        is_ours = result.incarnation == winner.state.incarnation and result.epoch >= epoch
        return Applied(
            epoch=epoch,
            result="present" if is_ours else "refused",
            started_at_us=begun,
            took_us=took_us,
            detail=result.reason,
        )

    def _first_attempt_us(self, epoch: int) -> int:
        """A write whose reply was lost is in force from then on: its repetition counts from where it began."""
        if self._begun is None or self._begun[0] != epoch:
            self._begun = (epoch, self._clock.now_us())
        return self._begun[1]

    def look(self, expected: Expected) -> RedisSeen | None:
        """What is wrong with the key, or None where it is as the log says."""
        raw = self._store.read()
        if raw is None:
            return RedisSeen(status="missing", reported=expected.reported)
        try:
            state = RoutingState.model_validate_json(raw)
            roles = self._ring.roles_of(state.key_id)
            is_by_hand = "gatekeeper" not in roles
            verify_document(state, self._ring, role="break-glass" if is_by_hand else "gatekeeper")
        except (ValidationError, SignatureError) as error:
            why = "not a routing state" if isinstance(error, ValidationError) else str(error)
            return RedisSeen(
                status="forged", epoch=_epoch_in(raw), reported=expected.reported, detail=why[:500]
            )
        return _judge(state, expected, is_by_hand=is_by_hand)


def _judge(state: RoutingState, expected: Expected, *, is_by_hand: bool) -> RedisSeen | None:
    found = {"epoch": state.epoch, "reported": expected.reported}
    if state.incarnation != expected.incarnation:
        return RedisSeen(status="foreign", detail=f"incarnation {state.incarnation}", **found)
    if is_by_hand:
        is_known = state.epoch < expected.applied_epoch or state.decision_id == expected.decision_id
        return None if is_known else RedisSeen(status="break-glass", state=state, **found)
    if state.epoch < expected.applied_epoch:
        return RedisSeen(status="behind", **found)
    if state.epoch > expected.epoch:
        detail = "signed by a gatekeeper, but the log does not know it"
        return RedisSeen(status="forged", detail=detail, **found)
    return None


def _epoch_in(raw: bytes) -> int:
    """The epoch an unbelievable key claims, so that what is put back is above it."""
    try:
        epoch = json.loads(raw).get("epoch")
    except (ValueError, AttributeError, RecursionError):
        return 0
    # Beyond 2**52 the store's script could no longer compare epochs exactly.
    return epoch if isinstance(epoch, int) and 0 <= epoch < 2**52 else 0
