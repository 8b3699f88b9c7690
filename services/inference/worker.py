"""The stream edge of inference: poll, fence, answer, read the state once more, commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.event import Slot
from schemas.readiness import Readiness
from schemas.routing import RoutingState
from services.inference.answering import Asked
from services.inference.core.answers import (
    Judged,
    Produced,
    answer_event,
    assignment_batches,
    assignment_row,
    earns_receipt,
    failure,
    outcome_batches,
    outcome_row,
)
from services.inference.core.overload import Load, OverloadPolicy
from services.inference.core.plan import Forwarding, Plan, expired, plan_batch
from services.inference.core.routed_query import RoutedQuery, read_routed_query
from services.inference.guarded_engine import GuardedEngine
from services.inference.hops import answered_hops
from services.inference.metrics import InferenceMetrics
from services.inference.publishing import Publisher
from services.inference.releases import Preparer, ReleaseShelf
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.records import Outgoing, Record
from twinloop.bus.stream import TransactionalStream
from twinloop.clock import Clock
from twinloop.codec import encode
from twinloop.errors import InvalidEvent, Transient
from twinloop.process import StopSignal
from twinloop.receipts import Receipt, issue_receipt, question_digest
from twinloop.routing.fence import is_affected
from twinloop.routing.reader import Reading, StateReader
from twinloop.routing.stamp import Stamp
from twinloop.safety.classifier import Classifier
from twinloop.signing import Signer
from twinloop.telemetry.logging import get_logger
from twinloop.telemetry.tracing import Tracer
from twinloop.topics import TopicCatalogue

_HOLD_PAUSE_S = 0.02
_HOLD_AT_MOST_S = 5.0
"""Longer than it usually takes to go on by the last known state, far below Kafka's poll interval."""
_UNDONE_PAUSE_S = 0.05
_log = get_logger(__name__)


@dataclass(frozen=True)
class WorkerLimits:
    """The bounds of one worker's loop."""

    slot: Slot
    batch_max: int
    batch_wait_s: float
    max_hops: int
    overload: OverloadPolicy
    readiness_interval_s: float
    prepare_timeout_s: float
    keep_releases: int


class InferenceWorker:
    """Consumes one slot's topic and answers exactly once, under the release each query was stamped with."""

    def __init__(
        self,
        limits: WorkerLimits,
        *,
        name: str,
        stream: TransactionalStream,
        producer: IdempotentProducer,
        topics: TopicCatalogue,
        reader: StateReader,
        shelf: ReleaseShelf,
        preparer: Preparer,
        engine: GuardedEngine,
        toxicity: Classifier,
        publisher: Publisher,
        signer: Signer,
        metrics: InferenceMetrics,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._limits, self._name = limits, name
        self._stream, self._producer, self._topics = stream, producer, topics
        self._reader, self._shelf, self._preparer, self._engine = reader, shelf, preparer, engine
        self._toxicity, self._publisher, self._signer = toxicity, publisher, signer
        self._metrics, self._clock, self._tracer = metrics, clock, tracer
        self._epoch, self._applied_at_us, self._incarnation = 0, 0, ""
        self._recent: list[str] = []
        self._load = Load()
        self._said: tuple[object, ...] = ()
        self._said_at = 0.0

    def is_ready(self) -> tuple[bool, str]:
        """Whether this worker can answer under the state it knows, and why not."""
        state = self._reader.installed
        if state is None:
            return False, "no routing state has been read yet"
        missing = [each for each in state.resident if each not in self._shelf.ready]
        return (not missing, f"epoch {state.epoch}" if not missing else f"preparing {', '.join(missing)}")

    def run(self, stop: StopSignal) -> None:
        """Work until stopped, then drain: what was polled is answered and committed."""
        while not stop.is_set():
            try:
                self._turn()
            except Transient as error:
                self._undo(error)
        self._say_readiness(force=True, stopping=True)
        self._producer.flush(5.0)

    def _undo(self, error: Transient) -> None:
        """What was polled comes again, whichever part failed: else the next commit would pass over it."""
        self._metrics.retries.inc()
        _log.warning("undone", reason=str(error))
        try:
            self._stream.abort()
        except Transient as again:
            _log.warning("undone by the stream", reason=str(again))
        time.sleep(_UNDONE_PAUSE_S)

    def _turn(self) -> None:
        records = self._stream.poll(self._poll_max(), self._limits.batch_wait_s)
        self._watch_load(len(records))
        self._reader.begin()
        batch, unreadable = self._parsed(records)
        reading = self._reader.finish(self._clock.monotonic())
        if reading.state is None and records:
            reading = self._read_until_known(reading)
        if reading.state is None:
            self._metrics.holds.inc()
            if records:
                self._stream.abort()
            return
        self._apply(reading.state)
        if records:
            self._process(batch, unreadable, state=reading.state, unconfirmed=reading.unconfirmed)
        self._say_readiness()

    def _poll_max(self) -> int:
        """Under overload more is read than one pass answers, so that the backlog shrinks quicker than it grows."""
        usual = self._limits.batch_max
        return max(usual, self._limits.overload.drain_max) if self._load.is_overload else usual

    def _watch_load(self, polled: int) -> None:
        one_pass = self._limits.batch_max
        waiting = self._stream.waiting() if polled >= one_pass else 0
        self._load = self._load.seen(
            self._limits.overload,
            polled=polled,
            one_pass=one_pass,
            waiting=waiting,
            now_s=self._clock.monotonic(),
        )

    def _read_until_known(self, reading: Reading) -> Reading:
        """Wait a while for a state to work by while Redis is silent; Kafka keeps what was polled meanwhile."""
        until = self._clock.monotonic() + _HOLD_AT_MOST_S
        while reading.state is None and self._clock.monotonic() < until:
            self._metrics.holds.inc()
            time.sleep(_HOLD_PAUSE_S)
            reading = self._reader.read(self._clock.monotonic())
        return reading

    def _apply(self, state: RoutingState) -> None:
        if (state.incarnation, state.epoch) == (self._incarnation, self._epoch):
            return
        self._incarnation, self._epoch, self._applied_at_us = (
            state.incarnation,
            state.epoch,
            self._clock.now_us(),
        )
        self._preparer.want(state.resident)
        recent = [*state.resident, *self._recent]
        revoked = set(state.revoked) - set(state.resident)
        self._recent = [each for each in dict.fromkeys(recent) if each not in revoked][
            : self._limits.keep_releases
        ]
        self._shelf.keep_only(set(self._recent))
        self._engine.keep_only(set(state.resident))
        self._metrics.epoch.set(state.epoch)
        self._say_readiness(force=True)

    def _parsed(self, records: Sequence[Record]) -> tuple[list[RoutedQuery], list[Outgoing]]:
        batch: list[RoutedQuery] = []
        unreadable: list[Outgoing] = []
        for record in records:
            try:
                batch.append(read_routed_query(record))
            except InvalidEvent as error:
                self._metrics.dead_letters.inc()
                _log.warning("dead letter", reason=str(error))
                unreadable.append(self._publisher.dead_letter(record, error, at_ms=self._clock.now_ms()))
        return batch, unreadable

    def _process(
        self,
        batch: Sequence[RoutedQuery],
        unreadable: Sequence[Outgoing],
        *,
        state: RoutingState,
        unconfirmed: bool,
    ) -> None:
        start_us = self._clock.now_us()
        plan = plan_batch(
            batch,
            state,
            now_ms=self._clock.now_ms(),
            max_hops=self._limits.max_hops,
            answer_max=self._limits.batch_max,
            overload=self._limits.overload if self._load.is_overload else None,
        )
        ended = [(refusal.routed, failure(refusal.kind, refusal.detail)) for refusal in plan.refuse]
        ended += zip(plan.keep, self._answered(plan.keep), strict=True)
        now_ms = self._clock.now_ms()
        ended = [(routed, _in_time(routed, produced, now_ms)) for routed, produced in ended]
        judged = self._judged([produced for _, produced in ended])
        forwardings = self._forwardings(plan, unconfirmed=unconfirmed)
        endings = self._endings(ended, judged, now_ms=now_ms, unconfirmed=unconfirmed)
        # Read once more before the commit: work decided under an epoch that no longer holds is not committed.
        latest = self._read_until_known(self._reader.read(self._clock.monotonic()))
        stamps = [routed.stamp for routed in batch]
        if latest.state is None or is_affected(stamps, decided=state, seen=latest.state):
            self._metrics.redecided.inc()
            self._stream.abort()
            return
        if latest.unconfirmed and not unconfirmed:
            forwardings = self._forwardings(plan, unconfirmed=True)
            endings = self._endings(ended, judged, now_ms=now_ms, unconfirmed=True)
        for each in (*unreadable, *forwardings, *endings):
            self._stream.send(each)
        self._stream.commit()
        self._count(ended, judged, plan)
        if self._tracer is not None:
            for hop in answered_hops(ended, endings, start_us=start_us, end_us=self._clock.now_us()):
                self._tracer.record(hop)

    def _answered(self, keep: Sequence[RoutedQuery]) -> list[Produced]:
        self._await_releases(keep)
        produced: dict[int, Produced] = {}
        asked: dict[int, Asked] = {}
        for row, routed in enumerate(keep):
            ready = self._shelf.ready.get(routed.stamp.release)
            if ready is None:
                detail = f"release {routed.stamp.release} cannot be prepared by this worker"
                produced[row] = failure("unavailable", detail)
            else:
                asked[row] = Asked(routed.query.text, routed.stamp.domain, ready)
        produced.update(zip(asked, self._engine.answer(list(asked.values())), strict=True))
        return [produced[row] for row in range(len(keep))]

    def _await_releases(self, keep: Sequence[RoutedQuery]) -> None:
        """Wait for releases that are not here yet: once for the whole batch, and not beyond anybody's deadline."""
        missing: dict[str, int] = {}
        for routed in keep:
            release = routed.stamp.release
            if release not in self._shelf.ready:
                missing[release] = max(missing.get(release, 0), routed.deadline_at)
        if not missing:
            return
        resident = self._reader.installed.resident if self._reader.installed else ()
        self._preparer.want(tuple(dict.fromkeys([*resident, *missing])))
        until = self._clock.monotonic() + self._limits.prepare_timeout_s
        for release, deadline_at in missing.items():
            left_s = min(until - self._clock.monotonic(), (deadline_at - self._clock.now_ms()) / 1000)
            self._preparer.wait_for(release, max(0.0, left_s))

    def _forwardings(self, plan: Plan, *, unconfirmed: bool) -> list[Outgoing]:
        stamps = [self._new_stamp(each, unconfirmed=unconfirmed) for each in plan.forward]
        rows = [
            (stamp.origin, assignment_row(each.routed, stamp))
            for each, stamp in zip(plan.forward, stamps, strict=True)
        ]
        at_ms = self._clock.now_ms()
        return [
            *(
                self._publisher.forwarded(each, stamp)
                for each, stamp in zip(plan.forward, stamps, strict=True)
            ),
            *self._publisher.assignments(assignment_batches(rows, worker=self._name), at_ms=at_ms),
        ]

    def _new_stamp(self, forwarding: Forwarding, *, unconfirmed: bool) -> Stamp:
        """The new release's own rules choose the domain; where it is not ready here, the earlier choice stands."""
        ready = self._shelf.ready.get(forwarding.assignment.release)
        query, stamp = forwarding.routed.query, forwarding.routed.stamp
        domain = query.domain or (stamp.domain if ready is None else ready.domains.choose(query.text))
        return stamp.forwarded(forwarding.assignment, domain=domain, unconfirmed=unconfirmed)

    def _endings(
        self,
        ended: Sequence[tuple[RoutedQuery, Produced]],
        judged: Sequence[Judged | None],
        *,
        now_ms: int,
        unconfirmed: bool,
    ) -> list[Outgoing]:
        outgoing: list[Outgoing] = []
        rows = []
        for (routed, produced), verdict in zip(ended, judged, strict=True):
            receipt = self._receipt(routed, produced, now_ms)
            answer = answer_event(
                routed, produced, answered_at=now_ms, receipt=receipt, unconfirmed=unconfirmed
            )
            outgoing.append(self._publisher.answer(routed, answer))
            rows.append((routed.stamp.origin, outcome_row(routed, produced, verdict, answered_at=now_ms)))
        batches = outcome_batches(rows, worker=self._name, toxicity_classifier=self._classifier_name)
        return [*outgoing, *self._publisher.outcomes(batches, at_ms=now_ms)]

    @property
    def _classifier_name(self) -> str:
        return f"{self._toxicity.name}@{self._toxicity.version}"

    def _judged(self, produced: Sequence[Produced]) -> list[Judged | None]:
        spoken = [row for row, each in enumerate(produced) if each.text is not None]
        judged: list[Judged | None] = [None] * len(produced)
        if spoken:
            scores = self._toxicity.classify([produced[row].text or "" for row in spoken])
            for row, score in zip(spoken, scores, strict=True):
                judged[row] = Judged(score.score, score.label)
        return judged

    def _receipt(self, routed: RoutedQuery, produced: Produced, now_ms: int) -> str | None:
        stamp = routed.stamp
        if not earns_receipt(stamp, produced):
            return None
        receipt = Receipt(
            kind="answer",
            query_id=routed.query.id,
            question_sha256=question_digest(routed.query.text),
            domain=stamp.domain,
            release=stamp.release,
            slot=stamp.slot,
            epoch=stamp.epoch,
            adapter=produced.adapter,
            index=produced.index,
            rules=produced.rules,
            issued_at=now_ms,
            unit=stamp.unit,
        )
        return issue_receipt(receipt, self._signer)

    def _count(
        self, ended: Sequence[tuple[RoutedQuery, Produced]], judged: Sequence[Judged | None], plan: Plan
    ) -> None:
        self._metrics.forwarded.inc(len(plan.forward))
        for (routed, produced), verdict in zip(ended, judged, strict=True):
            self._metrics.answered(routed.stamp, produced, self._clock.now_ms() - routed.stamp.assigned_at)
            if verdict is not None:
                self._metrics.labelled(routed.stamp, is_toxic=verdict.label)

    def _say_readiness(self, *, force: bool = False, stopping: bool = False) -> None:
        ready, problems = tuple(sorted(self._shelf.ready)), self._preparer.problems
        saying = (self._epoch, ready, tuple(problems.items()))
        now = self._clock.monotonic()
        is_due = now - self._said_at >= self._limits.readiness_interval_s
        if not (force or is_due or saying != self._said):
            return
        self._said, self._said_at = saying, now
        at_ms = self._clock.now_ms()
        event = Readiness(
            worker=self._name,
            service="inference",
            slot=self._limits.slot,
            incarnation=self._incarnation,
            epoch=self._epoch,
            applied_at_us=self._applied_at_us,
            releases=ready,
            problems=tuple(f"{release}: {why}"[:500] for release, why in problems.items()),
            at=at_ms,
            stopping=stopping,
        )
        value, head = encode(
            event,
            source=f"inference/{self._name}",
            event_id=f"{self._name}.{self._clock.now_us()}",
            at_ms=at_ms,
        )
        self._producer.send(
            Outgoing(
                self._topics.name("readiness"), value, key=self._name.encode(), headers=head, partition=0
            )
        )


def _in_time(routed: RoutedQuery, produced: Produced, now_ms: int) -> Produced:
    """An answer that came too late becomes the deadline error that its asker was promised."""
    if produced.error is not None or now_ms <= routed.deadline_at:
        return produced
    late = expired(routed, now_ms)
    return failure(late.kind, late.detail)
