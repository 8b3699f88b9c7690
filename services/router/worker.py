"""The stream edge of the router: poll, read the routing state, decide, send, commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from schemas.routing import RoutingState
from services.router.core.micro_batch import Decisions, Situation, decide
from services.router.core.overload import OverloadPolicy
from services.router.emission import RANDOM_BYTES, Emitter
from services.router.hops import routed_hops
from services.router.memory import PartitionMemory
from services.router.metrics import RouterMetrics
from services.router.parsing import Intake, Parser
from services.router.readiness import ReadinessReporter
from twinloop.bus.dead_letter import dead_letter
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.clock import Clock
from twinloop.errors import InvalidEvent, NotReady, Transient
from twinloop.process import StopSignal
from twinloop.routing.reader import Reading, StateReader
from twinloop.routing.rules_book import RulesBook
from twinloop.telemetry.logging import get_logger
from twinloop.telemetry.tracing import Hop, Tracer

_log = get_logger(__name__)
_PREPARE_PAUSE_S = 0.5
_UNDONE_PAUSE_S = 0.02
_READ_AGAIN = 2
_READ_AGAIN_PAUSE_S = 0.02

Assigned = Callable[[Sequence[TopicPartition]], None]


class Stream(Protocol):
    """What the router needs of a transactional stream."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]: ...

    def send_all(self, outgoing: Sequence[Outgoing]) -> None: ...

    def commit(self) -> None: ...

    def commit_before(self, records: Sequence[Record]) -> None: ...

    def begin_commit(self) -> None: ...

    def end_commit(self) -> None: ...

    def abort(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    @property
    def commits(self) -> int: ...


OpenStream = Callable[[Callable[[Sequence[TopicPartition]], None]], Stream]
"""Joins the group; its argument is called with the partitions given up."""


@dataclass(frozen=True)
class RouterLimits:
    """The bounds of one router's loop."""

    batch_max: int
    idle_wait_s: float
    batch_interval_s: float
    commit_interval_s: float
    max_record_bytes: int
    overload: OverloadPolicy


@dataclass(frozen=True)
class RouterParts:
    """What a router is made of."""

    reader: StateReader
    rules: RulesBook
    memory: PartitionMemory
    emitter: Emitter
    readiness: ReadinessReporter
    metrics: RouterMetrics
    clock: Clock
    sleep: Callable[[float], object]
    random: Callable[[int], bytes]
    tracer: Tracer | None = None


class RouterWorker:
    """Routes every query exactly once, each micro-batch by one reading of the routing state."""

    def __init__(
        self,
        limits: RouterLimits,
        parts: RouterParts,
        *,
        service: str,
        dead_letters: str,
        open_stream: OpenStream,
    ) -> None:
        self._limits, self._parts = limits, parts
        self._service, self._dead_letters = service, dead_letters
        self._parser = Parser(max_bytes=limits.max_record_bytes)
        self._stream = open_stream(self._on_revoked)
        self._commits = self._stream.commits
        self._dirty_since: float | None = None
        self._next_batch_at = 0.0
        self._tried: RoutingState | None = None
        self._prepared: RoutingState | None = None
        self._next_prepare_at = 0.0
        self._is_held = False
        self._hops: list[Hop] = []
        """Of the open transaction, where traces are asked for."""

    def is_ready(self) -> tuple[bool, str]:
        """Whether queries are being routed, and why not."""
        if self._prepared is None or self._is_held:
            return False, f"holding: {self._parts.reader.mode}"
        return True, f"epoch {self._prepared.epoch}"

    def run(self, stop: StopSignal) -> None:
        """Routes until stopped, then drains: what was polled is committed."""
        while not stop.is_set():
            self.turn()
        try:
            self._commit()
        except Transient as error:
            self._undone(error)
        self._parts.readiness.say(stopping=True)

    def turn(self) -> None:
        """One round; whatever Transient undid comes again in a later one. Raises Fenced, ConfigError."""
        try:
            if self._is_held:
                self._wait_for_state()
            else:
                self._route_next()
        except Transient as error:
            self._undone(error)
        self._parts.readiness.tick()

    def _route_next(self) -> None:
        clock = self._parts.clock
        self._parts.sleep(max(0.0, self._next_batch_at - clock.monotonic()))
        records = self._poll(self._poll_wait())
        if not records:
            self._end_commit()
            if not self._may_route_soon(self._parts.reader.read(clock.monotonic())):
                self._hold()
            self._commit_if_due()
            return
        started = clock.monotonic()
        self._next_batch_at = started + self._limits.batch_interval_s
        origins = {record.partition for record in records}
        if self._parts.memory.lacks(origins):
            # A dead peer's transaction may hide the changelog for longer than the broker lets ours stay open.
            self._commit_before(records)
        self._parts.memory.restore(origins, now_ms=clock.now_ms())
        # Sent after the batch is here and read once it is parsed: what was consumed after a swap was
        # acknowledged can never be routed by the state before it.
        self._parts.reader.begin()
        batch, letters = self._parsed(records)
        if not self._may_route_soon(self._parts.reader.finish(clock.monotonic())):
            self._hold()
            return
        self._route(batch, letters, is_backlogged=len(records) == self._limits.batch_max)
        self._parts.metrics.batch_seconds.observe(clock.monotonic() - started)
        self._parts.metrics.batch_size.observe(len(records))
        self._commit_if_due()

    def _route(
        self,
        batch: Sequence[Intake],
        letters: Sequence[Outgoing],
        *,
        is_backlogged: bool,
    ) -> None:
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        start_us = parts.clock.now_us() if parts.tracer is not None else 0
        decisions = self._decided(batch, now_ms=now_ms, is_backlogged=is_backlogged)
        random_bytes = parts.random(RANDOM_BYTES * len(decisions.routes))
        emitted = parts.emitter.emit(decisions, batch, now_ms=now_ms, random_bytes=random_bytes)
        # Kafka had the time of all the above to commit what was sent before.
        self._end_commit()
        if self._dirty_since is None:
            self._dirty_since = parts.clock.monotonic()
        # First the memory, then the sending: an undo in between must find these ids to forget.
        early = parts.memory.add(decisions.ended, at_ms=now_ms)
        self._stream.send_all([*emitted, *letters])
        if parts.tracer is not None:
            end_us = parts.clock.now_us()
            self._hops += routed_hops(decisions.routes, batch, emitted, start_us=start_us, end_us=end_us)
        if letters:
            parts.metrics.dead_letters.inc(len(letters))
        parts.metrics.decided(decisions)
        if early:
            parts.metrics.evicted.inc(early)

    def _decided(self, batch: Sequence[Intake], *, now_ms: int, is_backlogged: bool) -> Decisions:
        state, memory = self._prepared, self._parts.memory
        assert state is not None  # _may_route said so
        situation = Situation(
            state=state,
            chooser=self._parts.rules.chooser,
            seen=lambda origin: memory.seen(origin, now_ms=now_ms),
            now_ms=now_ms,
            policy=self._limits.overload,
            unconfirmed=self._parts.reader.mode == "static",
            is_backlogged=is_backlogged,
        )
        return decide(batch, situation)

    def _parsed(self, records: Sequence[Record]) -> tuple[list[Intake], list[Outgoing]]:
        plain = self._parser.parse_plain(records)
        if plain is not None:
            return plain, []
        batch: list[Intake] = []
        letters: list[Outgoing] = []
        for record in records:
            try:
                batch.append(self._parser.parse(record))
            except InvalidEvent as error:
                _log.warning("dead letter", reason=str(error))
                at_ms = self._parts.clock.now_ms()
                letters.append(
                    dead_letter(
                        record, topic=self._dead_letters, error=error, service=self._service, at_ms=at_ms
                    )
                )
        return batch, letters

    def _may_route_soon(self, reading: Reading) -> bool:
        """As `_may_route`, asked a few times: one late reply of Redis is no reason to undo what was decided before."""
        for _ in range(_READ_AGAIN):
            if self._may_route(reading):
                return True
            self._parts.sleep(_READ_AGAIN_PAUSE_S)
            reading = self._parts.reader.read(self._parts.clock.monotonic())
        return self._may_route(reading)

    def _may_route(self, reading: Reading) -> bool:
        """Whether there is a state to route by, with its rules at hand; makes a new one the one in use."""
        parts, state = self._parts, reading.state
        if reading.problem is not None:
            parts.metrics.unread.labels(reading.problem).inc()
        parts.metrics.unconfirmed.set(reading.unconfirmed)
        if state is None:
            return False
        now = parts.clock.monotonic()
        is_retry_due = bool(parts.rules.problems) and now >= self._next_prepare_at
        if state is self._tried and not is_retry_due:
            return state is self._prepared
        self._tried = state
        return self._prepare(state, now)

    def _prepare(self, state: RoutingState, now: float) -> bool:
        parts = self._parts
        self._next_prepare_at = now + _PREPARE_PAUSE_S
        try:
            parts.rules.prepare(state)
        except NotReady as error:
            _log.warning("rules missing", epoch=state.epoch, reason=str(error))
            return False
        finally:
            parts.readiness.troubled(parts.rules.problems)
        if state is not self._prepared:
            self._prepared = state
            parts.metrics.epoch.set(state.epoch)
            parts.readiness.applied(state)
            _log.info("epoch applied", epoch=state.epoch, phase=state.phase, active=state.active)
        return True

    def _hold(self) -> None:
        """Nothing may be decided: undo what is not committed, keep the queries in Kafka, stay in the group."""
        _log.warning("holding", mode=self._parts.reader.mode)
        self._is_held = True
        self._parts.metrics.holding.set(1)
        self._undo()
        self._stream.pause()

    def _wait_for_state(self) -> None:
        if self._poll(self._limits.idle_wait_s):
            # A record that was on its way when the partitions were paused; it comes again.
            self._stream.abort()
        if self._may_route(self._parts.reader.read(self._parts.clock.monotonic())):
            self._stream.resume()
            self._is_held = False
            self._parts.metrics.holding.set(0)
            _log.info("routing again", mode=self._parts.reader.mode)

    def _poll(self, wait_s: float) -> list[Record]:
        records = self._stream.poll(self._limits.batch_max, wait_s)
        if self._stream.commits != self._commits:
            # Partitions were given up inside poll(), which committed what was open.
            self._committed()
        return records

    def _poll_wait(self) -> float:
        if self._dirty_since is None:
            return self._limits.idle_wait_s
        left = self._dirty_since + self._limits.commit_interval_s - self._parts.clock.monotonic()
        return min(self._limits.idle_wait_s, max(0.0, left))

    def _commit_if_due(self) -> None:
        if self._dirty_since is None:
            return
        if self._parts.clock.monotonic() - self._dirty_since >= self._limits.commit_interval_s:
            self._dirty_since = None
            self._stream.begin_commit()

    def _end_commit(self) -> None:
        """Knows afterwards what became of the commit begun last."""
        self._stream.end_commit()
        if self._stream.commits != self._commits:
            self._committed()

    def _commit(self) -> None:
        self._end_commit()
        if self._dirty_since is not None:
            self._stream.commit()
            self._committed()

    def _commit_before(self, records: Sequence[Record]) -> None:
        self._end_commit()
        if self._dirty_since is not None:
            self._stream.commit_before(records)
            self._committed()

    def _committed(self) -> None:
        self._commits = self._stream.commits
        self._dirty_since = None
        self._parts.memory.confirm()
        if self._parts.tracer is not None:
            for hop in self._hops:
                self._parts.tracer.record(hop)
            self._hops.clear()

    def _undone(self, error: Transient) -> None:
        _log.warning("undone", reason=str(error))
        self._parts.metrics.undone.inc()
        self._undo()
        self._parts.sleep(_UNDONE_PAUSE_S)

    def _undo(self) -> None:
        """Back to the last commit; one on its way still counts, and its ids stay remembered, if Kafka confirms it."""
        with suppress(Transient):
            self._end_commit()
        self._stream.abort()
        self._dirty_since = None
        self._hops.clear()
        self._parts.memory.undo()

    def _on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._parts.memory.forget(source.partition for source in partitions)
