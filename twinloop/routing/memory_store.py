"""The routing key in this process: the fake that passes the real store's contract tests."""

from __future__ import annotations

import json
import threading
from typing import Any

from twinloop.errors import ConfigError, Transient
from twinloop.routing.store import Installed, InstallMode, Refused


class MemoryRoutingStore:
    """One key in memory, shared between threads; `is_silent` makes every call fail as a cut link would."""

    def __init__(self, value: bytes | None = None) -> None:
        self.value = value
        self.is_silent = False
        self._lock = threading.Lock()
        self._begun: list[bytes | None] = []

    def begin_read(self) -> None:
        """Takes the value as of now, as a server does that gets the request now."""
        if not self.is_silent:
            self._begun = [self.value]

    def finish_read(self) -> bytes | None:
        """The value as of `begin_read`; raises Transient while silent."""
        begun, self._begun = self._begun, []
        if self.is_silent:
            raise Transient("the routing store does not answer")
        return begun[0] if begun else self.value

    def read(self) -> bytes | None:
        self.begin_read()
        return self.finish_read()

    def install(self, state_json: bytes, *, mode: InstallMode) -> Installed | Refused:
        """As the Redis store's script does it."""
        if self.is_silent:
            raise Transient("the routing store does not answer")
        new = _decoded(state_json)
        if new is None:
            raise ConfigError("the state to install is not a JSON object with an epoch and an incarnation")
        with self._lock:
            refused = self._refusal(state_json, new, mode)
            if refused is None:
                self.value = state_json
        return Installed(new["epoch"], durable=False) if refused is None else refused

    def close(self) -> None:
        """Nothing to let go of."""

    def _refusal(self, state_json: bytes, new: dict[str, Any], mode: InstallMode) -> Refused | None:
        if self.value is None:
            return None if mode in ("create", "restore") else Refused("missing_key")
        if self.value == state_json:
            return None
        current = _decoded(self.value)
        if current is None:
            return None if mode == "restore" else Refused("unreadable")
        at = (current["epoch"], current["incarnation"])
        if mode == "create":
            return Refused("key_exists", *at)
        if current["incarnation"] != new["incarnation"]:
            return Refused("other_incarnation", *at)
        return None if new["epoch"] > current["epoch"] else Refused("not_higher", *at)


def _decoded(value: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(value)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    epoch, incarnation = document.get("epoch"), document.get("incarnation")
    is_whole = isinstance(epoch, int) and not isinstance(epoch, bool) and isinstance(incarnation, str)
    return document if is_whole else None
