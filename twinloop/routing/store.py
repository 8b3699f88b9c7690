"""What every store of the routing key promises, and the two outcomes of a write."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

InstallMode = Literal["create", "advance", "restore", "break-glass"]
"""`create`: only where the key is missing. `advance` and `break-glass`: only over a lower epoch of the same
incarnation. `restore`: as `advance`, and also where the key is missing or unreadable."""

InstallRefusal = Literal["key_exists", "missing_key", "other_incarnation", "not_higher", "unreadable"]


class Installed(msgspec.Struct, frozen=True):
    """The state is live; `durable` says whether the store proved that it survives the store's own death."""

    epoch: int
    durable: bool


class Refused(msgspec.Struct, frozen=True):
    """The state was not written; `epoch` and `incarnation` are the key's own (0 and "" without them)."""

    reason: InstallRefusal
    epoch: int = 0
    incarnation: str = ""


class StoreFacts(msgspec.Struct, frozen=True):
    """What a server says of itself; `fsync` is empty where it may not be asked."""

    version: str
    appends: bool
    fsync: str
    time_us: int
    """The server's own clock, microseconds since 1970 UTC."""
    process_id: int = 0
    """On the server's own machine; 0 where it does not say."""


class RoutingStore(Protocol):
    """The one key. Reads are raw bytes: who reads also verifies. Errors of the store are Transient."""

    def begin_read(self) -> None:
        """Sends the read without waiting; never raises, `finish_read` reports."""

    def finish_read(self) -> bytes | None:
        """The key's bytes (None where it is missing), begun before or now; raises Transient on silence."""

    def read(self) -> bytes | None:
        """Begins and finishes one read."""

    def install(self, state_json: bytes, *, mode: InstallMode) -> Installed | Refused:
        """The one atomic write; the same bytes again are Installed again. Raises Transient, ConfigError."""

    def close(self) -> None:
        """Lets go of the connection; may be called twice."""
