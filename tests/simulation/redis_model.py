"""Redis as a small model: one value that links may not reach, and that may be lost or fall back."""

from __future__ import annotations

from twinloop.errors import Transient
from twinloop.routing.memory_store import MemoryRoutingStore
from twinloop.routing.store import Installed, InstallMode, Refused


class Redis:
    """The server: the shipped install rules, the values it ever held, and whether it lost an acknowledged one."""

    def __init__(self) -> None:
        self._store = MemoryRoutingStore()
        self.history: list[bytes] = []
        self.has_lost = False

    @property
    def value(self) -> bytes | None:
        return self._store.value

    def install(self, state_json: bytes, mode: InstallMode) -> bool:
        """Whether the state was written."""
        outcome = self._store.install(state_json, mode=mode)
        if isinstance(outcome, Installed):
            self.history.append(state_json)
            self.has_lost = False
        return isinstance(outcome, Installed)

    def lose(self, survivor: bytes | None) -> None:
        """A failover or a disk without AOF: an older value, or none, is all that is left."""
        self._store.value = survivor
        self.has_lost = True


class Link:
    """One process's connection, as a RoutingStore; a cut may fall between a read's beginning and its end."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.is_cut = False
        self._answer: tuple[bytes | None] | None = None

    def begin_read(self) -> None:
        self._answer = None if self.is_cut else (self._redis.value,)

    def finish_read(self) -> bytes | None:
        answer, self._answer = self._answer, None
        if answer is None or self.is_cut:
            raise Transient("cut")
        return answer[0]

    def read(self) -> bytes | None:
        self.begin_read()
        return self.finish_read()

    def install(self, state_json: bytes, *, mode: InstallMode) -> Installed | Refused:
        raise AssertionError("readers never write")

    def close(self) -> None:
        """Nothing to let go of."""


class Disk:
    """A process's disk copy of the routing state, surviving its death."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def load(self) -> bytes | None:
        return self.content

    def save(self, state_json: bytes) -> None:
        self.content = state_json

    def close(self) -> None:
        """Nothing under way."""
