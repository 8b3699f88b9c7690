"""Server-sent events of decisions, progress and status (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from schemas.decisions import Decision
from services.api.core.read_model import Logged
from services.api.core.views import status_view
from services.api.follower import Follower
from twinloop.clock import Clock

LOOK_EVERY_S = 0.2
STATUS_EVERY_S = 1.0
ALLOWED_EVERY_S = 1.0
KEEP_ALIVE_S = 15.0


class EventStream:
    """One caller's stream: what is logged, in order, and the status at most once a second when it changed."""

    def __init__(
        self,
        follower: Follower,
        clock: Clock,
        *,
        is_stopping: Callable[[], bool],
        is_allowed: Callable[[], bool],
        max_s: float,
    ) -> None:
        self._follower, self._clock = follower, clock
        self._is_stopping, self._is_allowed, self._max_s = is_stopping, is_allowed, max_s
        self._allowed_at = float("-inf")
        self._seen_version = -1
        self._status_at = float("-inf")
        self._said_at = 0.0

    async def events(self, after: int) -> AsyncIterator[bytes]:
        """Events with an offset above `after`, until the stream is told to end, has lasted long enough, or is refused.

        Whether its reader may go on reading is asked once a second.
        """
        started = self._said_at = self._clock.monotonic()
        yield b"retry: 1000\n\n"
        while not self._is_stopping() and self._clock.monotonic() - started < self._max_s:
            if not self._may_go_on():
                return
            for part in self._news(after):
                self._said_at = self._clock.monotonic()
                after = max(after, part[0])
                yield part[1]
            if self._clock.monotonic() - self._said_at > KEEP_ALIVE_S:
                self._said_at = self._clock.monotonic()
                yield b": still here\n\n"
            await asyncio.sleep(LOOK_EVERY_S)

    def _may_go_on(self) -> bool:
        now = self._clock.monotonic()
        if now - self._allowed_at < ALLOWED_EVERY_S:
            return True
        self._allowed_at = now
        return self._is_allowed()

    def _news(self, after: int) -> list[tuple[int, bytes]]:
        if self._follower.version == self._seen_version:
            return []
        found: list[tuple[int, bytes]] = []
        now = self._clock.monotonic()
        with self._follower.model() as model:
            found += [(each.offset, _logged(each)) for each in model.since(after)]
            if now - self._status_at >= STATUS_EVERY_S:
                self._status_at, self._seen_version = now, model.version
                view = status_view(model, now_ms=self._clock.now_ms(), caught_up=self._follower.is_caught_up)
                found.append((-1, _event("status", view.model_dump_json().encode())))
        return found


def _logged(each: Logged) -> bytes:
    kind = "decision" if isinstance(each.event, Decision) else "progress"
    return _event(kind, each.event.model_dump_json().encode(), str(each.offset))


def _event(kind: str, data: bytes, identity: str | None = None) -> bytes:
    head = f"id: {identity}\n" if identity is not None else ""
    return f"{head}event: {kind}\ndata: ".encode() + data + b"\n\n"


def data_line(value: Any) -> bytes:
    """One unnamed event, as OpenAI's clients read them."""
    return b"data: " + orjson.dumps(value) + b"\n\n"
