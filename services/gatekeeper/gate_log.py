"""Writes `gate-inputs`: what was seen, before anybody acts on it."""

from __future__ import annotations

import itertools
from typing import Protocol

from schemas.gate_inputs import Body, GateInput
from twinloop.bus.records import Outgoing
from twinloop.clock import Clock
from twinloop.codec import encode


class Producer(Protocol):
    """Sends records outside any transaction; `flush` raises where one did not arrive."""

    def send(self, outgoing: Outgoing) -> None: ...

    def flush(self, timeout_s: float = 10.0) -> None: ...


class GateLog:
    """One process's pen on the log; safe to share between threads."""

    def __init__(self, producer: Producer, *, topic: str, name: str, session: str, clock: Clock) -> None:
        self._producer, self._topic, self._name, self._clock = producer, topic, name, clock
        self._source = f"gatekeeper/{name}/{session}"
        self._numbers = itertools.count()

    def write(self, *bodies: Body) -> None:
        """Queue records in this order; they are in the log once `flush` returns."""
        for body in bodies:
            value, headers = encode(
                GateInput(by=self._name, body=body),
                source=self._source,
                event_id=str(next(self._numbers)),
                at_ms=self._clock.now_ms(),
            )
            self._producer.send(
                Outgoing(self._topic, value, key=body.kind.encode(), headers=headers, partition=0)
            )

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything written so far is in the log; raises Transient where it is not in time."""
        self._producer.flush(timeout_s)
