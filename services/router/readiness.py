"""What this router tells the gatekeeper about itself: the epoch it acts on and since when."""

from __future__ import annotations

from typing import Protocol

from schemas.readiness import Readiness
from schemas.routing import RoutingState
from twinloop.bus.records import Outgoing
from twinloop.clock import Clock
from twinloop.codec import encode
from twinloop.errors import Transient
from twinloop.telemetry.logging import get_logger

_log = get_logger(__name__)
_FLUSH_S = 0.01


class Producer(Protocol):
    """Sends outside any transaction: readiness must show also while nothing is committed."""

    def send(self, outgoing: Outgoing) -> None: ...

    def flush(self, timeout_s: float = 10.0) -> None: ...


class ReadinessReporter:
    """Publishes readiness when it changes and every `interval_s`; a report that is lost is soon repeated."""

    def __init__(
        self, producer: Producer, *, topic: str, router: str, source: str, interval_s: float, clock: Clock
    ) -> None:
        self._producer, self._topic, self._clock = producer, topic, clock
        self._router, self._source, self._interval_s = router, source, interval_s
        self._state: RoutingState | None = None
        self._applied_at_us = 0
        self._problems: tuple[str, ...] = ()
        self._said_at = float("-inf")

    @property
    def epoch(self) -> int:
        return self._state.epoch if self._state is not None else 0

    def applied(self, state: RoutingState) -> None:
        """This router routes by `state` from now on."""
        self._state, self._applied_at_us = state, self._clock.now_us()
        self.say()

    def troubled(self, problems: tuple[str, ...]) -> None:
        """Releases whose rules are missing, and why; none where all is well."""
        if problems != self._problems:
            self._problems = problems
            self.say()

    def tick(self) -> None:
        """Repeats the report when its time has come."""
        if self._clock.monotonic() - self._said_at >= self._interval_s:
            self.say()

    def say(self, *, stopping: bool = False) -> None:
        """Publishes now; a silent Kafka is logged and not waited for."""
        self._said_at = self._clock.monotonic()
        try:
            self._producer.flush(_FLUSH_S)
            self._producer.send(self._record(stopping=stopping))
            if stopping:
                self._producer.flush(5.0)
        except Transient as error:
            _log.warning("readiness not published", reason=str(error))

    def _record(self, *, stopping: bool) -> Outgoing:
        now_ms = self._clock.now_ms()
        event = Readiness(
            worker=self._router,
            service="router",
            incarnation=self._state.incarnation if self._state is not None else "",
            epoch=self.epoch,
            applied_at_us=self._applied_at_us,
            problems=tuple(problem[:500] for problem in self._problems),
            at=now_ms,
            stopping=stopping,
        )
        value, headers = encode(
            event, source=self._source, event_id=f"{self._router}.{self._clock.now_us()}", at_ms=now_ms
        )
        return Outgoing(self._topic, value, self._router.encode(), headers, 0)
