"""The trainer's loop: one stream over everything it reads, one ledger, at most one run in the background.

Order of every step that must survive a kill: tell (Kafka transaction), then remember (checkpoint). A restart seeks to
the checkpoint's offsets, reads the same records again, decides and tells the same again, which changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from schemas.event import DOMAINS
from schemas.feedback import FeedbackStatus
from schemas.releases import ReleaseProposed
from services.trainer.background_run import BackgroundRun
from services.trainer.change_desk import ChangeDesk
from services.trainer.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from services.trainer.child_process import Cancelled
from services.trainer.core.effects import Effect
from services.trainer.core.ledger_state import Run
from services.trainer.core.lifecycle import Ledger
from services.trainer.core.training_schedule import decide
from services.trainer.dataset_cut import DatasetCutter, TopicNames
from services.trainer.intake import Intake
from services.trainer.learning_job import TrainingFailed
from services.trainer.metrics import TrainerMetrics
from services.trainer.publisher import Publisher
from services.trainer.rebuild import is_same_life, rebuilt_state
from services.trainer.recorded_queries import newest_queries, probe_questions
from services.trainer.release_reader import ReleaseReader
from services.trainer.screening import Screen
from services.trainer.settings import TrainerSettings
from services.trainer.training_run import Tools, proposed_before, sweep
from twinloop.bus.records import Record, TopicPartition
from twinloop.bus.stream import TransactionalStream
from twinloop.clock import Clock
from twinloop.errors import (
    ArtifactError,
    CommandRefused,
    ConfigError,
    Fenced,
    InvalidEvent,
    SignatureError,
    Transient,
)
from twinloop.process import StopSignal
from twinloop.telemetry.logging import get_logger
from twinloop.topics import TopicCatalogue

GROUP = "trainer"
TOPICS = ("feedback", "documents", "decisions", "commands", "changes")
_MAX_RECORDS = 500
_RETRY_S = (0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Parts:
    """Everything a session is wired from."""

    settings: TrainerSettings
    tools: Tools
    topics: TopicCatalogue
    screen: Screen
    metrics: TrainerMetrics
    clock: Clock


class TrainerWorker:
    """Runs sessions until stopped; whatever an edge undoes, the next session does again from the checkpoint."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._problem = "starting"
        self._log = get_logger("trainer")

    def is_ready(self) -> tuple[bool, str]:
        """Whether it reads its topics, and if not why."""
        return (not self._problem, self._problem or "reading")

    def run(self, stop: StopSignal) -> None:
        """Work until `stop`; raises Fenced and ConfigError, which no repetition mends."""
        failures = 0
        slot = BackgroundSlot()
        try:
            while not stop.is_set():
                try:
                    with Session(self._parts, slot, self._note_ready) as session:
                        while not stop.is_set():
                            session.step()
                            failures = 0
                        self._problem = "stopping"
                        session.drain()
                except Transient as error:
                    self._problem = str(error)
                    self._log.warning("starting_over", reason=str(error))
                    stop.wait(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                    failures += 1
        finally:
            slot.stop(self._parts.settings.trainer.job.stop_grace_s + 10.0)
            self._parts.tools.process.close()

    def _note_ready(self) -> None:
        self._problem = ""


class BackgroundSlot:
    """The run in the background, if any; it outlives a session, because a silent broker is no reason to train again."""

    def __init__(self) -> None:
        self.run: BackgroundRun | None = None

    def stop(self, timeout_s: float) -> None:
        """Cancel what runs and wait until its child is gone."""
        run, self.run = self.run, None
        if run is not None:
            run.stop(timeout_s)


class Session:
    """From one reading of the checkpoint to the first error of an edge."""

    def __init__(self, parts: Parts, slot: BackgroundSlot, note_ready: Callable[[], None]) -> None:
        self._parts = parts
        self._slot = slot
        self._note_ready = note_ready
        self._log = get_logger("trainer")
        settings, tools = parts.settings, parts.tools
        self._reader = ReleaseReader(tools.store, tools.ring)
        checkpoint = read_checkpoint(settings.checkpoint_file)
        if checkpoint is not None and not is_same_life(settings, parts.topics, checkpoint.state):
            self._log.warning("checkpoint_of_another_log", set_aside=str(settings.checkpoint_file) + ".old")
            settings.checkpoint_file.replace(f"{settings.checkpoint_file}.old")
            checkpoint = None
        if checkpoint is None:
            checkpoint = Checkpoint(rebuilt_state(parts.settings, parts.topics, self._reader, tools), {})
        self._ledger = Ledger(settings.trainer.lifecycle_policy(), checkpoint.state)
        self._offsets: dict[TopicPartition, int] = dict(checkpoint.offsets)
        self._intake = Intake(
            self._ledger,
            ring=tools.ring,
            screen=parts.screen,
            lineage=self._reader,
            cleaning=settings.trainer.cleaning_policy(),
            settings=settings.trainer.cleaning,
        )
        self._cutter = DatasetCutter(
            tools.store,
            self._reader,
            settings.trainer,
            classifiers=tools.classifiers,
            topics=TopicNames(parts.topics.name("feedback"), parts.topics.name("documents")),
        )
        self._changes = ChangeDesk(
            self._ledger.state,
            settings=settings.trainer.changes,
            store=tools.store,
            ring=tools.ring,
            reader=self._reader,
            queries=lambda: newest_queries(
                settings.kafka, parts.topics, settings.trainer.changes.replay_queries
            ),
            probes=probe_questions(settings.trainer.changes.probes_file),
            seed=settings.trainer.seed,
        )
        self._publisher = Publisher(parts.topics, source=f"trainer-{settings.instance}")
        self._policy = settings.trainer.schedule_policy()
        self._is_changed = False
        self._committed_at = self._checkpointed_at = parts.clock.monotonic()
        self._paused: frozenset[str] = frozenset()
        sweep(tools.work_folder, keep=self._ledger.state.run.run_id if self._ledger.state.run else None)
        self._stream = TransactionalStream(
            settings.kafka,
            group=f"{settings.topics.prefix}{GROUP}",
            topics=[parts.topics.name(name) for name in TOPICS],
            instance_id=settings.instance,
            # One trainer an installation: a second process takes over, the first one is fenced.
            transactional_id=f"{settings.topics.prefix}{GROUP}",
            on_assigned=self._start_offsets,
        )

    def __enter__(self) -> Session:
        self._resume()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def step(self) -> None:
        """One poll and everything that follows from it; raises Transient where the session must be begun anew."""
        settings = self._parts.settings.trainer
        records = self._stream.poll(_MAX_RECORDS, settings.poll_timeout_s)
        if self._stream.assignment():
            self._note_ready()
        for record in records:
            self._take(record)
        self._offsets.update((record.source, record.offset + 1) for record in records)
        self._is_changed = self._is_changed or bool(records)
        self._finish_run()
        now = self._parts.clock.now_ms()
        self._tell(self._ledger.expire_candidates(now))
        self._tell(self._changes.follow(None, now))
        self._tell(self._changes.examine(now))
        self._start_run()
        self._keep_warm()
        self._keep_memory_bounded()
        self._save()

    def drain(self) -> None:
        """Stop the child, keep its run for the next start, and leave nothing told but not remembered."""
        self._slot.stop(self._parts.settings.trainer.job.stop_grace_s + 10.0)
        self._save(at_once=True)

    # -- records ---------------------------------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        topic = self._parts.topics.declared_name(record.topic)
        try:
            if topic == "feedback":
                self._tell(self._intake.take_feedback(record))
            elif topic == "documents":
                self._intake.take_document(record)
            elif topic == "decisions":
                before = self._ledger.state.active
                self._tell(self._intake.take_decision(record))
                if self._ledger.state.active is not before:
                    self._tell(self._changes.follow(before, record.timestamp_ms))
            elif topic == "changes":
                self._tell(self._changes.take(record))
            else:
                done = self._intake.take_command(record)
                if done is not None:
                    self._log.info("command", action=done)
        except CommandRefused as error:
            self._log.warning("command_refused", reason=str(error))
        except (InvalidEvent, SignatureError) as error:
            self._parts.metrics.dead_letter(topic=topic)
            self._log.warning(
                "dead_letter",
                topic=topic,
                partition=record.partition,
                offset=record.offset,
                reason=str(error),
            )
            self._stream.send(self._publisher.dead_letter(record, error))

    def _tell(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._is_changed = True
            if isinstance(effect, FeedbackStatus):
                self._parts.metrics.feedback(
                    domain=effect.domain, disposition=effect.status, reason=effect.reason
                )
            self._stream.send(self._publisher.effect(effect))

    # -- runs ------------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Go on with the run of the checkpoint: propose it where it was finished, else train it again."""
        run = self._ledger.state.run
        if run is None:
            return
        known = proposed_before(self._parts.tools, run)
        if known is not None:
            # Before any decision is read: one may already be about this release.
            self._propose(known)
            self._save(at_once=True)

    def _start_run(self) -> None:
        if self._slot.run is not None:
            return
        if self._ledger.state.run is None:
            self._apply_change()
        if self._ledger.state.run is None:
            self._cut()
        run = self._ledger.state.run
        if run is not None:
            self._save(at_once=True)
            self._log.info(
                "training", run=run.run_id, reason=run.reason, rows=len(run.rows), attempt=run.attempt
            )
            self._slot.run = BackgroundRun(self._parts.tools, run)
            self._parts.metrics.is_training(True)

    def _apply_change(self) -> None:
        """An approved change comes before the next training: a person waits for it."""
        run, told = self._changes.next_run(self._parts.clock.now_ms())
        self._tell(told)
        if run is not None:
            self._is_changed = True
            self._ledger.begin_run(run)

    def _keep_warm(self) -> None:
        job = self._parts.settings.trainer.job
        if job.keep_warm and self._slot.run is None:
            self._parts.tools.process.prepare()

    def _cut(self) -> None:
        now = self._parts.clock.now_ms()
        start = decide(
            self._policy,
            self._ledger.news(now),
            self._ledger.readiness(),
            commanded=frozenset(self._ledger.state.commanded),
            now_ms=now,
        )
        if start is None:
            return
        try:
            told = self._cutter.cut(self._ledger, start, now_ms=now)
        except (ArtifactError, SignatureError) as error:
            self._log.error("parent_unusable", reason=str(error))
            for domain in start.domains:
                self._ledger.postpone(domain, now + 60_000)
            return
        self._is_changed = True
        self._tell(told)

    def _finish_run(self) -> None:
        background = self._slot.run
        if background is None:
            return
        current = self._ledger.state.run
        if current is None or current.run_id != background.run.run_id:
            background.stop(self._parts.settings.trainer.job.stop_grace_s)
        if not background.is_done:
            return
        self._slot.run = None
        self._is_changed = True
        self._parts.metrics.is_training(False)
        if current is None or current.run_id != background.run.run_id:
            self._log.info("training_cancelled", run=background.run.run_id)
            return
        self._settle(background)
        self._save(at_once=True)

    def _settle(self, background: BackgroundRun) -> None:
        run, now = background.run, self._parts.clock.now_ms()
        try:
            proposed = background.result()
        except Cancelled:
            return
        except TrainingFailed as error:
            self._count_failure(run, str(error), now, is_final=error.is_final)
            return
        except (ArtifactError, SignatureError, OSError) as error:
            # Nobody's rows are to blame for a damaged store or a full disk: they wait until it is mended.
            self._log.error("training_blocked", run=run.run_id, reason=str(error))
            self._tell(self._ledger.cancel_run(now))
            self._tell(self._changes.fail(run, f"its release could not be composed: {error}", now))
            for domain in run.domains:
                self._ledger.postpone(domain, now + 60_000)
            return
        except (Transient, Fenced, ConfigError):
            raise
        except Exception as error:
            # A run that no process survives must not be begun again by each. The message may hold users' words.
            frames = [
                f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)
            ]
            reason = f"unexpected {type(error).__name__} at {frames[-1]}"
            self._log.error("unexpected", run=run.run_id, kind=type(error).__name__, frames=frames)
            self._count_failure(run, reason, now, is_final=False)
            return
        self._parts.metrics.training(outcome="proposed", seconds=(now - run.started_at) / 1000)
        self._log.info("proposed", release=proposed.release_id, run=run.run_id)
        self._propose(proposed)

    def _count_failure(self, run: Run, reason: str, now: int, *, is_final: bool) -> None:
        """The run came to nothing: it is begun again, or ended where its attempts are used up."""
        self._log.error("training_failed", run=run.run_id, attempt=run.attempt, reason=reason)
        self._parts.metrics.training(outcome="failed", seconds=(now - run.started_at) / 1000)
        if is_final or not self._ledger.retry_run():
            self._tell(self._ledger.fail_run(reason, now))
            self._tell(self._changes.fail(run, reason, now))

    def _propose(self, proposed: ReleaseProposed) -> None:
        run = self._ledger.state.run
        self._tell(self._ledger.finish_run(proposed.release_id, proposed.proposed_at))
        if run is not None:
            self._tell(self._changes.propose_release(run, proposed.release_id, proposed.proposed_at))
        if self._ledger.is_candidate(proposed.release_id):
            self._stream.send(self._publisher.proposal(proposed))

    # -- memory ----------------------------------------------------------------------------------------------------

    def _start_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """From the checkpoint; a partition it never read begins at its start, whatever the group committed."""
        return {source: self._offsets.get(source, 0) for source in partitions}

    def _save(self, *, at_once: bool = False) -> None:
        settings, now = self._parts.settings.trainer, self._parts.clock.monotonic()
        if at_once or now - self._committed_at >= settings.commit_interval_s:
            self._stream.commit()
            self._committed_at = now
        is_due = now - self._checkpointed_at >= settings.checkpoint_interval_s
        if self._is_changed and (at_once or (is_due and not self._stream.in_transaction)):
            write_checkpoint(self._parts.settings.checkpoint_file, self._ledger.state, self._offsets)
            self._checkpointed_at = now
            self._is_changed = False
            self._show_waiting()

    def _show_waiting(self) -> None:
        state = self._ledger.state
        rows = Counter(row.domain for row in state.pending.values())
        documents = Counter(item.change.domain for item in state.documents.values())
        self._parts.metrics.waiting(
            rows={domain: rows[domain] for domain in DOMAINS},
            documents={domain: documents[domain] for domain in DOMAINS},
            replay={domain: len(buffer.rows) for domain, buffer in state.buffers.items()},
        )

    def _keep_memory_bounded(self) -> None:
        settings, state = self._parts.settings.trainer, self._ledger.state
        full = set()
        if len(state.pending) >= settings.max_pending_rows:
            full.add("feedback")
        if len(state.documents) >= settings.max_pending_documents:
            full.add("documents")
        if not full and not self._paused:
            return
        names = {name: self._parts.topics.name(name) for name in ("feedback", "documents")}
        owned = self._stream.assignment()
        for name, topic in names.items():
            partitions = [source for source in owned if source.topic == topic]
            if name in full:
                self._stream.pause(partitions)  # each time: partitions may have been assigned since
            elif name in self._paused:
                self._stream.resume(partitions)
        self._paused = frozenset(full)
