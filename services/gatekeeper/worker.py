"""The stream edge: a faust app that decodes, hands over and commits, beside one thread that judges."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from schemas.answers import Evaluation
from schemas.assignments import AssignmentBatch
from schemas.commands import Command
from schemas.event import Event
from schemas.feedback import Feedback, FeedbackStatus
from schemas.gate_inputs import Body
from schemas.outcomes import OutcomeBatch
from schemas.readiness import Readiness
from schemas.releases import ReleaseProposed
from services.gatekeeper.core.guardrail import rating_scope
from services.gatekeeper.core.probes import ProbeSet
from services.gatekeeper.gate_log import GateLog, Producer
from services.gatekeeper.intake import (
    FeedbackCounter,
    ReadinessFilter,
    check_command,
    qa_answer,
    qa_measurements,
)
from services.gatekeeper.judge_loop import JudgeLoop
from services.gatekeeper.lag import Fetched, ReadMarks
from services.gatekeeper.metrics import GatekeeperMetrics
from services.gatekeeper.rating_stage import RatingStage
from services.gatekeeper.release_checks import ReleaseChecks
from services.gatekeeper.settings import GatekeeperSection
from services.gatekeeper.tally_stage import Resume, TallyStage
from twinloop.bus.dead_letter import dead_letter
from twinloop.bus.faust_app import BusApp, build_app, commit_offsets, record_of
from twinloop.bus.records import Record
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.static_member import static_member_id
from twinloop.clock import Clock
from twinloop.codec import decode
from twinloop.errors import InvalidEvent, Transient
from twinloop.process import StopSignal
from twinloop.signing import KeyRing
from twinloop.statistics.tally import TallyMerger
from twinloop.telemetry.logging import get_logger
from twinloop.topics import DEAD_LETTERS, TopicCatalogue

_log = get_logger(__name__)
E = TypeVar("E", bound=Event)
Handler = Callable[[Record], Awaitable[None]]

_CLOSE_S = 0.25
_FEEDBACK_S = 5.0
_EPOCH_WAIT_S = 5.0
_PAUSE_S = 0.2
_POLL_S = 0.02


@dataclass(frozen=True)
class WorkerParts:
    """What the stream edge works with."""

    judge: JudgeLoop
    log: GateLog
    producer: Producer
    checks: ReleaseChecks
    ring: KeyRing
    probes: ProbeSet
    topics: TopicCatalogue
    metrics: GatekeeperMetrics
    clock: Clock


class GatekeeperWorker:
    """Runs the judge's thread and the stream until stopped."""

    def __init__(self, parts: WorkerParts, section: GatekeeperSection, *, name: str) -> None:
        self._parts, self._section, self._name = parts, section, name
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._readiness = ReadinessFilter(repeat_s=section.readiness_repeat_s)
        self._feedback = FeedbackCounter.empty()
        self._streams: dict[str, Any] = {}
        topics = parts.topics
        self._stage = TallyStage(
            parts.log,
            section.windows,
            topics=(topics.name("assignments"), topics.name("outcomes")),
            share_of=self._share_of,
            resume_of=self._resume_of,
            is_mirroring=self._is_mirroring,
        )
        policy = section.policy.ratings
        self._ratings = (
            None
            if policy is None
            else RatingStage(
                parts.log,
                policy,
                parts.ring,
                topic=topics.name("feedback"),
                scope_of=lambda: rating_scope(parts.judge.state),
            )
        )
        self._app: BusApp | None = None
        self._marks = ReadMarks(self._fetched, is_drained=self._is_drained)

    def is_ready(self) -> tuple[bool, str]:
        """Ready once the log was folded to its end; a standby is ready too."""
        judge = self._parts.judge
        if self._failure is not None:
            return False, f"failed: {self._failure}"
        if not judge.is_caught_up:
            return False, "folding gate-inputs"
        if judge.state.routing is None:
            return False, "no decision yet"
        role = "leading" if judge.is_leader else "standing by"
        return True, f"{role} at epoch {judge.state.routing.epoch}, phase {judge.state.routing.phase}"

    def run(self, kafka: KafkaSettings, stop: StopSignal, *, group: str) -> None:
        """Work until stopped; raises whatever ended the judge or the stream."""
        self._parts.judge.start()
        thread = threading.Thread(target=self._judge, name="judge")
        thread.start()
        try:
            asyncio.run(self._stream(kafka, stop, group=group))
        finally:
            self._stopping.set()
            thread.join()
            self._parts.judge.close()
        if self._failure is not None:
            raise self._failure

    def _judge(self) -> None:
        """The judge's thread: whatever Kafka or Redis do, nothing is skipped, only tried again."""
        while not self._stopping.is_set():
            try:
                self._parts.judge.step(_POLL_S)
            except Transient as error:
                _log.warning("judge_waits", reason=str(error))
                self._stopping.wait(_PAUSE_S)
            except BaseException as error:
                self._failure = error
                self._stopping.set()

    async def _stream(self, kafka: KafkaSettings, stop: StopSignal, *, group: str) -> None:
        handlers, topics = self._handlers(), self._parts.topics
        app = build_app(
            kafka,
            group=group,
            partitions=topics.partitions("queries"),
            instance_id=static_member_id(self._name, [topics.name(topic) for topic in handlers]),
        )
        self._app = app
        self._register(app, handlers)
        await app.start()
        try:
            while not (stop.is_set() or self._stopping.is_set()):
                if app.crashed:
                    raise Transient(f"the stream crashed: {app.crash_reason!r}") from app.crash_reason
                await asyncio.sleep(0.05)
        finally:
            self._parts.judge.is_leader = False
            await app.stop()

    def _handlers(self) -> dict[str, Handler]:
        """What becomes of a record, by topic."""
        return {
            "assignments": self._on_assignments,
            "outcomes": self._on_outcomes,
            "commands": self._on_command,
            "releases": self._on_release,
            "readiness": self._on_readiness,
            "evaluations": self._on_evaluation,
            "feedback.status": self._on_feedback,
            **({} if self._ratings is None else {"feedback": self._on_rating}),
        }

    def _register(self, app: BusApp, handlers: Mapping[str, Handler]) -> None:
        for topic, handler in handlers.items():
            name = self._parts.topics.name(topic)
            app.agent(app.topic(name), name=f"{self._name}-{topic}")(
                partial(self._read, topic=topic, handler=handler)
            )
        app.timer(_CLOSE_S)(self._close_windows)
        app.timer(_FEEDBACK_S)(self._log_feedback)
        # Strong references: faust keeps its signal receivers weakly.
        self._receivers: tuple[Any, Any] = (self._on_revoked, self._on_assigned)
        cast(Any, app.on_partitions_revoked).connect(self._receivers[0])
        cast(Any, app.on_partitions_assigned).connect(self._receivers[1])

    async def _read(self, stream: Any, *, topic: str, handler: Handler) -> None:
        """One agent: what cannot be read goes to the dead letters, what fails for now is tried again."""
        self._streams[self._parts.topics.name(topic)] = stream
        events: AsyncIterator[Any] = stream.noack().events()
        async for event in events:
            record = record_of(event)
            while not self._stopping.is_set():
                try:
                    await handler(record)
                except InvalidEvent as error:
                    self._bury(record, error)
                except Transient as error:
                    _log.warning("stream_waits", topic=topic, reason=str(error))
                    await asyncio.sleep(_PAUSE_S)
                    continue
                except Exception as error:
                    # An agent that raises would skip the record: the process must end instead.
                    self._failure = error
                    self._stopping.set()
                    raise
                self._marks.handled(record.topic, record.partition, timestamp_ms=record.timestamp_ms)
                break

    async def _on_assignments(self, record: Record) -> None:
        batch = self._decoded(record, AssignmentBatch)
        await self._know_epoch(max(row.epoch for row in batch.rows))
        self._stage.assigned(batch, partition=record.partition, offset=record.offset)

    async def _on_outcomes(self, record: Record) -> None:
        batch = self._decoded(record, OutcomeBatch)
        found = qa_measurements(batch)
        if found is not None:
            self._parts.log.write(found)
        self._stage.answered(batch, partition=record.partition, offset=record.offset)

    async def _on_command(self, record: Record) -> None:
        command = decode(record, Command)
        seen = check_command(command, self._parts.ring, source_offset=record.offset)
        if seen.verdict == "refused":
            _log.warning("command_refused", actor=command.actor, action=command.action, reason=seen.detail)
        await self._log_and_commit(record, seen)

    async def _on_release(self, record: Record) -> None:
        event = decode(record, ReleaseProposed)
        check = partial(self._parts.checks.proposal, event, source_offset=record.offset)
        seen = await asyncio.get_running_loop().run_in_executor(None, check)
        _log.info("proposal", release=seen.release, verdict=seen.verdict, detail=seen.detail)
        await self._log_and_commit(record, seen)

    async def _on_readiness(self, record: Record) -> None:
        routing = self._parts.judge.state.routing
        seen = self._readiness.take(
            decode(record, Readiness),
            incarnation=None if routing is None else routing.incarnation,
            now=self._parts.clock.monotonic(),
        )
        if seen is not None:
            await self._log_and_commit(record, seen)

    async def _on_evaluation(self, record: Record) -> None:
        found = qa_answer(decode(record, Evaluation), self._parts.probes)
        if found is not None:
            await self._log_and_commit(record, found)

    async def _on_feedback(self, record: Record) -> None:
        self._feedback.add(decode(record, FeedbackStatus))

    async def _on_rating(self, record: Record) -> None:
        try:
            feedback = decode(record, Feedback)
        except InvalidEvent as error:
            # The trainer reads the same topic and buries what nobody can read; one dead letter is enough.
            _log.info("rating_not_counted", reason=str(error))
            return
        if self._ratings is not None:
            self._ratings.given(feedback, partition=record.partition, offset=record.offset)

    async def _log_feedback(self) -> None:
        counts = self._feedback.take()
        if counts is not None:
            self._parts.log.write(counts)

    async def _log_and_commit(self, record: Record, body: Body) -> None:
        self._parts.log.write(body)
        await self._flush()
        if self._app is not None:
            await commit_offsets(self._app, {record.source: record.offset + 1})

    async def _close_windows(self) -> None:
        """Log the windows that are complete, then commit how far a successor need not read again."""
        if self._app is None or self._stopping.is_set():
            return
        self._lead_where_commands_are_ours()
        names = [self._parts.topics.name(topic) for topic in ("assignments", "outcomes")]
        owned = {(tp.topic, tp.partition) for tp in self._app.consumer.assignment()}
        closed = 0
        for partition in sorted({p for topic, p in owned if topic == names[0]}):
            if not all((name, partition) in owned for name in names):
                continue  # Its outcomes are read elsewhere: every query would look unanswered.
            watermark = min(self._marks.watermark_ms(name, partition) for name in names)
            if watermark:
                closed += self._stage.close(partition, watermark / 1000)
        closed += self._close_ratings(owned)
        offsets = self._stage.commitable()
        of_ratings = {} if self._ratings is None else self._ratings.commitable()
        if not (closed or offsets or of_ratings):
            return
        try:
            await self._flush()
            await commit_offsets(
                self._app,
                {place: at for place, at in {**offsets, **of_ratings}.items() if tuple(place) in owned},
            )
            self._stage.committed(offsets)
            if self._ratings is not None:
                self._ratings.committed(of_ratings)
        except Transient as error:
            _log.warning("stream_waits", topic="tallies", reason=str(error))

    def _close_ratings(self, owned: set[tuple[str, int]]) -> int:
        """Log the windows of ratings that have matured in our partitions of `feedback`; returns how many."""
        if self._ratings is None:
            return 0
        name, closed = self._parts.topics.name("feedback"), 0
        for partition in sorted(partition for topic, partition in owned if topic == name):
            watermark = self._marks.watermark_ms(name, partition)
            if watermark:
                closed += self._ratings.close(partition, watermark / 1000)
        return closed

    def _lead_where_commands_are_ours(self) -> None:
        """Whoever reads the one partition of `commands` acts; Kafka's group makes that one at a time."""
        app = self._app
        if app is None:
            return
        name = self._parts.topics.name("commands")
        judge = self._parts.judge
        is_leader = any(tp.topic == name and tp.partition == 0 for tp in app.consumer.assignment())
        if is_leader != judge.is_leader:
            _log.info("leading" if is_leader else "standing_by")
            judge.is_leader = is_leader

    async def _on_revoked(self, _app: Any, revoked: Any, **_: Any) -> None:
        self._stage.drop({tp.partition for tp in revoked})
        if self._ratings is not None:
            name = self._parts.topics.name("feedback")
            self._ratings.drop({tp.partition for tp in revoked if tp.topic == name})
        self._marks.drop({(tp.topic, tp.partition) for tp in revoked})

    async def _on_assigned(self, _app: Any, _assigned: Any, **_: Any) -> None:
        self._lead_where_commands_are_ours()

    async def _know_epoch(self, epoch: int) -> None:
        """Wait until the judge knows a row's epoch, or its canary share would be unknown."""
        deadline = self._parts.clock.monotonic() + _EPOCH_WAIT_S
        while self._known_epoch < epoch and self._parts.clock.monotonic() < deadline:
            await asyncio.sleep(0.01)

    @property
    def _known_epoch(self) -> int:
        routing = self._parts.judge.state.routing
        return 0 if routing is None else routing.epoch

    def _share_of(self, epoch: int) -> int:
        return self._parts.judge.state.shares.get(epoch, 0)

    def _is_mirroring(self) -> bool:
        routing = self._parts.judge.state.routing
        return routing is not None and routing.mirror is not None

    def _resume_of(self, partition: int) -> Resume:
        state = self._parts.judge.state
        return Resume(
            closed_until=self._closed_until(state.merger, partition),
            open_from=max(0, state.open_from.get(partition, 0)),
            copies_until=self._closed_until(state.copies, partition),
        )

    def _closed_until(self, merger: TallyMerger, partition: int) -> float:
        """End of the last window of a partition that was logged."""
        reached = merger.progress.get(partition)
        if reached is None:
            return 0.0
        # A window's own tally is known by its start, a heartbeat by its end.
        return reached[0] + (self._section.windows.seconds if reached[1] >= 0 else 0.0)

    def _decoded(self, record: Record, event_class: type[E]) -> E:
        event = decode(record, event_class)
        if getattr(event, "origin", record.partition) != record.partition:
            raise InvalidEvent(
                f"{record.topic}[{record.partition}]@{record.offset}: rows of another origin partition"
            )
        return event

    def _bury(self, record: Record, error: InvalidEvent) -> None:
        self._parts.metrics.ignored.labels(self._parts.topics.declared_name(record.topic)).inc()
        _log.error("dead_letter", reason=str(error))
        self._parts.producer.send(
            dead_letter(
                record,
                topic=self._parts.topics.name(DEAD_LETTERS),
                error=error,
                service=self._name,
                at_ms=self._parts.clock.now_ms(),
            )
        )

    async def _flush(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._parts.log.flush)

    def _fetched(self, topic: str, partition: int) -> Fetched | None:
        """What the consumer behind faust knows; its public numbers, read from another thread."""
        if self._app is None:
            return None
        place = next((tp for tp in self._app.consumer.assignment() if tp == (topic, partition)), None)
        consumer = cast(Any, self._app.consumer)._thread._consumer
        if place is None or consumer is None:
            return None
        state = consumer._subscription.subscription.assignment.state_value(place)
        if state is None or state.lso is None or state.timestamp is None or not state.has_valid_position:
            return None
        return Fetched(position=state.position, end=state.lso, at_ms=state.timestamp)

    def _is_drained(self, topic: str) -> bool:
        stream = self._streams.get(topic)
        return stream is None or bool(stream.channel.queue.empty())
