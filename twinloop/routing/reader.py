"""The reader of the routing key that routers, workers and the gatekeeper's watchers share."""

from __future__ import annotations

import msgspec
from pydantic import ValidationError

from schemas.routing import RoutingState
from twinloop.errors import ConfigError, SignatureError, Transient
from twinloop.routing.disk_copy import DiskCopy
from twinloop.routing.reader_core import (
    Mode,
    NoAnswer,
    ReaderCore,
    ReaderPolicy,
    observe_no_answer,
    observe_state,
    observe_unchanged,
)
from twinloop.routing.store import RoutingStore
from twinloop.routing.verification import Verify


class Reading(msgspec.Struct, frozen=True):
    """What one read came to; `state` is None in HOLD, because nothing may be decided then."""

    state: RoutingState | None
    mode: Mode
    is_new: bool = False
    """The first reading of this reader with this epoch."""
    problem: NoAnswer | None = None
    """Why there was no answer; anything but `silent` is worth an alarm."""

    @property
    def unconfirmed(self) -> bool:
        """Decided by the last known good state while the store gives none."""
        return self.mode == "static"


class StateReader:
    """One GET a micro-batch: `begin()` after the batch is here, `finish(now)` once it is parsed.

    A signature is checked only when the bytes change. One thread only.
    """

    def __init__(
        self,
        store: RoutingStore,
        *,
        verify: Verify,
        policy: ReaderPolicy | None = None,
        disk_copy: DiskCopy | None = None,
    ) -> None:
        """Starts from `disk_copy` where it holds a believable state; such a state is used only in STATIC."""
        self._store = store
        self._verify = verify
        self._policy = policy or ReaderPolicy()
        self._disk_copy = disk_copy
        self._core = ReaderCore()
        self._used: RoutingState | None = None
        self._installed: bytes | None = None
        self._refused: tuple[bytes, NoAnswer] | None = None
        self._load_disk_copy()

    @property
    def installed(self) -> RoutingState | None:
        """The newest state this reader believes in, whatever the mode; never to decide by in HOLD."""
        return self._core.state

    @property
    def mode(self) -> Mode:
        return self._core.mode

    def begin(self) -> None:
        """Sends the read; never raises."""
        self._store.begin_read()

    def finish(self, now: float) -> Reading:
        """The verdict on the read begun before (or begun now); `now` is monotonic seconds. Never raises."""
        before = self._core.state
        self._core = self._observe(now)
        state = self._core.state
        if state is not before and self._disk_copy is not None and self._installed is not None:
            self._disk_copy.save(self._installed)
        if state is None or self._core.mode == "hold":
            return Reading(None, self._core.mode, problem=self._core.problem)
        is_new, self._used = state is not self._used, state
        return Reading(state, self._core.mode, is_new, self._core.problem)

    def read(self, now: float) -> Reading:
        """Begins and finishes one read."""
        self.begin()
        return self.finish(now)

    def close(self) -> None:
        """Waits for the disk copy and closes the store."""
        if self._disk_copy is not None:
            self._disk_copy.close()
        self._store.close()

    def _observe(self, now: float) -> ReaderCore:
        core, policy = self._core, self._policy
        try:
            raw = self._store.finish_read()
        except Transient:
            return observe_no_answer(core, "silent", now=now, policy=policy)
        except ConfigError:
            return observe_no_answer(core, "denied", now=now, policy=policy)
        if raw is None:
            return observe_no_answer(core, "missing_key", now=now, policy=policy)
        if raw == self._installed:
            return observe_unchanged(core)
        if self._refused is not None and raw == self._refused[0]:
            return observe_no_answer(core, self._refused[1], now=now, policy=policy)
        found = self._believed(raw)
        if not isinstance(found, RoutingState):
            self._refused = (raw, found)
            return observe_no_answer(core, found, now=now, policy=policy)
        after = observe_state(core, found, now=now, policy=policy)
        if after.problem is None:
            self._installed, self._refused = raw, None
        else:
            self._refused = (raw, after.problem)
        return after

    def _believed(self, raw: bytes) -> RoutingState | NoAnswer:
        try:
            state = RoutingState.model_validate_json(raw)
            self._verify(state)
        except ValidationError:
            return "malformed"
        except SignatureError:
            return "bad_signature"
        return state

    def _load_disk_copy(self) -> None:
        raw = self._disk_copy.load() if self._disk_copy is not None else None
        found = self._believed(raw) if raw is not None else None
        if isinstance(found, RoutingState):
            self._core = ReaderCore(state=found, is_from_disk=True)
            self._installed = raw
