"""The judge's edge: reads `gate-inputs` in order, folds, and carries out what the fold wants.

One thread owns the state, the routing key and the decision log. A standby runs the same loop, folds the same
records and does nothing else, so that it can take over between two records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.decisions import Decision
from schemas.gate_inputs import Applied, GateInput, Genesis, RedisSeen, Tick
from services.gatekeeper.checkpoint import Checkpoint
from services.gatekeeper.core.effects import (
    Audit,
    CheckBlobs,
    Effect,
    PublishDecision,
    PublishProgress,
    SendProbes,
)
from services.gatekeeper.core.fold import duties, fold
from services.gatekeeper.core.policy import policy_change
from services.gatekeeper.core.probes import ProbeSet
from services.gatekeeper.core.readiness import ready_workers
from services.gatekeeper.core.state import Examining, JudgeState
from services.gatekeeper.core.turn import decision_digest
from services.gatekeeper.decision_log import DecisionLog, Winner
from services.gatekeeper.gate_log import GateLog, Producer
from services.gatekeeper.metrics import GatekeeperMetrics
from services.gatekeeper.probe_run import ChooserOf, ProbeRun
from services.gatekeeper.release_checks import BlobCheckRunner
from services.gatekeeper.routing_key import UNPROVEN, Expected, RoutingKey
from services.gatekeeper.settings import GatekeeperSection
from twinloop.bus.records import Record
from twinloop.clock import Clock
from twinloop.codec import decode
from twinloop.errors import ConfigError, InvalidEvent, Transient
from twinloop.routing.store import InstallMode
from twinloop.telemetry.logging import get_logger
from twinloop.topics import TopicCatalogue

_log = get_logger(__name__)
_LAG_S = 10.0
"""How often the end of `gate-inputs` is asked for, which takes a connection of its own."""
_REDIS_REPEAT_S = 10.0
"""A routing key that stays wrong is logged again this often."""


class InputReader(Protocol):
    """Reads `gate-inputs` from a known offset."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]: ...

    def read_to_end(self, timeout_s: float = 10.0) -> list[Record]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class JudgeParts:
    """The edges of a judge."""

    open_inputs: Callable[[int], InputReader]
    """A reader of `gate-inputs` from this offset on."""
    end_of_inputs: Callable[[], int]
    """The offset after the last record of `gate-inputs`."""
    log: GateLog
    decisions: DecisionLog
    key: RoutingKey
    blob_checks: BlobCheckRunner
    probes: ProbeSet
    chooser_of: ChooserOf
    producer: Producer
    topics: TopicCatalogue
    checkpoint: Checkpoint
    metrics: GatekeeperMetrics
    clock: Clock
    new_incarnation: Callable[[], str]
    bootstrap: Callable[[], tuple[str, str]]
    """(release, rules) both slots start with; asked for at genesis only."""


class JudgeLoop:
    """Folds and acts; `step` is called again and again by one thread."""

    def __init__(self, parts: JudgeParts, section: GatekeeperSection, *, name: str, software: str) -> None:
        self._parts, self._section, self._name, self._software = parts, section, name, software
        self.state = JudgeState()
        self.is_leader = False
        """Set by whoever knows which instance acts; a standby only folds."""
        self.is_caught_up = False
        self._inputs: InputReader | None = None
        self._live_from = 0
        self._pending: deque[Decision] = deque()
        """Decided, and not yet read back as winners."""
        self._unapplied: dict[int, Winner] = {}
        self._installed_epoch = 0
        self._run: ProbeRun | None = None
        self._since_checkpoint = 0
        self._ticked_at = float("-inf")
        self._looked_at = float("-inf")
        self._lag_asked_at = float("-inf")
        self._redis_said: tuple[object, float] | None = None
        self._is_begun = False

    def start(self, timeout_s: float = 60.0) -> None:
        """Read the whole decision log, and fold `gate-inputs` up to where it ends now.

        Raises ConfigError where the two logs do not belong together or this software decides otherwise than
        the log says; Transient where Kafka is silent.
        """
        parts = self._parts
        parts.decisions.read_to_end(timeout_s)
        end = parts.end_of_inputs()
        if end == 0 and parts.decisions.incarnation is not None:
            raise ConfigError(
                "gate-inputs is empty but decisions is not: restore the topic, or start a new installation "
                "with another topic prefix"
            )
        self.state = parts.checkpoint.load(incarnation=parts.decisions.incarnation, end_offset=end)
        self._live_from = end
        self._inputs = parts.open_inputs(self.state.offset + 1)
        for record in self._inputs.read_to_end(timeout_s):
            self._fold(record)
        self.is_caught_up = True
        self._show()
        _log.info(
            "caught_up", offset=self.state.offset, epoch=self.state.routing.epoch if self.state.routing else 0
        )

    def step(self, timeout_s: float) -> int:
        """Fold what is new and act on it; returns the number of records. Raises Transient: call again."""
        inputs = self._inputs
        if inputs is None:
            raise RuntimeError("start() comes first")
        self._parts.metrics.leading.set(self.is_leader)
        self._parts.decisions.read()
        records = inputs.poll(500, timeout_s)
        for record in records:
            self._fold(record)
        self._measure_lag()
        try:
            self._confirm()
            if self.is_leader:
                self._lead()
        except Transient:
            self._doubt()
            raise
        return len(records)

    def _measure_lag(self) -> None:
        """How far the fold is behind the log, asked from the broker now and then."""
        now = self._parts.clock.monotonic()
        if now - self._lag_asked_at >= _LAG_S:
            self._lag_asked_at = now
            self._parts.metrics.lag.set(max(0, self._parts.end_of_inputs() - 1 - self.state.offset))

    def _doubt(self) -> None:
        """Something may not have been logged: do it again, because the fold takes each fact once."""
        self._installed_epoch = self.state.applied_epoch
        self._is_begun = False
        self._run = None
        self._redis_said = None
        self._parts.blob_checks.forget()

    def close(self) -> None:
        """Keep a checkpoint and let go of the log."""
        if self._inputs is not None:
            self._inputs.close()
            if not self._pending and self.state.routing is not None:
                self._parts.checkpoint.save(self.state)
        self._parts.blob_checks.close()

    def _fold(self, record: Record) -> None:
        try:
            gate_input = decode(record, GateInput)
        except InvalidEvent as error:
            # Every judge skips it alike, so the fold stays the same everywhere.
            _log.error("gate_input_ignored", offset=record.offset, reason=str(error))
            self._parts.metrics.ignored.labels("gate-inputs").inc()
            return
        self.state, effects = fold(self.state, gate_input, record.offset)
        self._parts.metrics.inputs.labels(gate_input.body.kind).inc()
        self._since_checkpoint += 1
        for number, effect in enumerate(effects):
            self._note(effect, offset=record.offset, number=number)
        if isinstance(gate_input.body, Applied):
            # Also where it was refused: what stands in the way is seen in Redis and answered by a new decision.
            epoch = max(gate_input.body.epoch, self.state.applied_epoch)
            self._unapplied = {e: winner for e, winner in self._unapplied.items() if e > epoch}
            if gate_input.body.result == "installed":
                self._parts.metrics.in_force(is_durable=gate_input.body.detail != UNPROVEN)
        if effects or (isinstance(gate_input.body, Tick) and record.offset >= self._live_from):
            self._show()

    def _show(self) -> None:
        self._parts.metrics.folded(self.state)
        self._parts.metrics.workers(ready_workers(self.state))

    def _note(self, effect: Effect, *, offset: int, number: int) -> None:
        is_live = offset >= self._live_from
        if isinstance(effect, PublishDecision):
            self._pending.append(effect.decision)
            if is_live:
                decision = effect.decision
                self._parts.metrics.decided(decision)
                _log.info("decision", kind=decision.kind, epoch=decision.epoch, line=decision.line)
            return
        if isinstance(effect, PublishProgress):
            self._parts.metrics.judged(effect.progress)
        if not (is_live and self.is_leader):
            return  # People were told when it happened.
        if isinstance(effect, PublishProgress):
            self._parts.decisions.publish_progress(effect.progress)
            _log.info("progress", phase=effect.progress.phase, line=effect.progress.line)
        elif isinstance(effect, Audit):
            self._parts.decisions.publish_audit(effect.entry, event_id=f"audit-{offset}-{number}")

    def _confirm(self) -> None:
        """Match decisions with the log's winners, in order; a leader logs those that are missing."""
        while self._pending:
            decision = self._pending[0]
            if self.is_leader:
                self._parts.decisions.publish(decision, timeout_s=self._section.read_back_timeout_s)
            digest = self._parts.decisions.digest_of(decision.epoch)
            if digest is None:
                return
            if digest != decision_digest(decision):
                raise ConfigError(
                    f"decisions: epoch {decision.epoch} was decided otherwise than software {self._software} "
                    f"decides it from gate-inputs up to offset {decision.input_offset}; start the version that "
                    f"logged it, or bring this instance's checkpoint back"
                )
            winner = self._parts.decisions.winner(decision.epoch)
            if winner is not None and decision.epoch > self.state.applied_epoch:
                self._unapplied[decision.epoch] = winner
            self._pending.popleft()

    def _lead(self) -> None:
        self._tick()
        self._begin()
        self._apply()
        self._look_at_redis()
        self._do_duties()
        self._parts.log.flush()
        self._keep_checkpoint()

    def _tick(self) -> None:
        is_idle = self.state.stage is None and self.state.waiting is None and self.state.routing is not None
        interval_s = self._section.idle_tick_s if is_idle else self._section.tick_s
        now = self._parts.clock.monotonic()
        if now - self._ticked_at >= interval_s:
            self._ticked_at = now
            self._parts.log.write(Tick(now=self._parts.clock.now_ms()))

    def _begin(self) -> None:
        """Log the policy where it is another one, and genesis where there is none; once for each leadership."""
        if self._is_begun:
            return
        self._is_begun = True
        state, section = self.state, self._section
        change = policy_change(
            section.policy,
            software=self._software,
            origin_partitions=self._parts.topics.partitions("queries"),
        )
        in_force = state.next_policy or state.policy
        is_same = (
            in_force is not None
            and in_force.digest == change.digest
            and state.software == change.software
            and len(state.merger.partitions) == change.origin_partitions
        )
        if not is_same:
            self._parts.log.write(change)
        if state.routing is None:
            release, rules = self._parts.bootstrap()
            self._parts.log.write(
                Genesis(incarnation=self._parts.new_incarnation(), release=release, rules=rules)
            )

    def _apply(self) -> None:
        """Install the newest confirmed decision; those before it that were never applied are superseded."""
        waiting = {epoch: w for epoch, w in self._unapplied.items() if epoch > self._installed_epoch}
        if not waiting:
            return
        epoch = max(waiting)
        kinds = {winner.kind for winner in waiting.values()}
        mode: InstallMode = "advance"
        if self.state.applied_epoch == 0 and "genesis" in kinds:
            mode = "create"
        elif kinds & {"restore", "adopt"}:
            mode = "restore"
        found = self._look()
        if found is not None and (mode != "restore" or found.epoch >= epoch):
            # Whatever is wrong is judged first: what an operator wrote by hand must not be written over.
            self._say_redis(found)
            return
        applied = self._parts.key.install(waiting[epoch], mode=mode)
        self._installed_epoch = epoch
        self._parts.metrics.applied(applied)
        self._parts.log.write(applied)
        _log.info("installed", epoch=epoch, result=applied.result, took_us=applied.took_us)

    def _look(self) -> RedisSeen | None:
        state = self.state
        if state.routing is None or state.applied_epoch == 0:
            return None
        expected = Expected(
            incarnation=state.routing.incarnation,
            applied_epoch=state.applied_epoch,
            epoch=state.routing.epoch,
            decision_id=state.routing.decision_id,
            reported=max((worker.epoch for worker in state.workers.values()), default=0),
        )
        return self._parts.key.look(expected)

    def _look_at_redis(self) -> None:
        now = self._parts.clock.monotonic()
        is_settled = not self._pending and not self._unapplied
        if now - self._looked_at < self._section.redis_check_s or not is_settled:
            return
        self._looked_at = now
        found = self._look()
        if found is None:
            self._redis_said = None
        else:
            self._say_redis(found)

    def _say_redis(self, found: RedisSeen) -> None:
        """Log a wrong key when that changes, and again from time to time while it lasts."""
        now = self._parts.clock.monotonic()
        what = (found.status, found.epoch, self.state.routing.epoch if self.state.routing else 0)
        if self._redis_said is not None:
            said, at = self._redis_said
            if said == what and now - at < _REDIS_REPEAT_S:
                return
        self._redis_said = (what, now)
        self._parts.metrics.redis_wrong.labels(found.status).inc()
        _log.warning("routing_key_wrong", status=found.status, epoch=found.epoch, detail=found.detail)
        self._parts.log.write(found)

    def _do_duties(self) -> None:
        wanted = duties(self.state)
        probes = next((duty for duty in wanted if isinstance(duty, SendProbes)), None)
        self._send_probes(probes)
        check = next((duty for duty in wanted if isinstance(duty, CheckBlobs)), None)
        if check is None:
            self._parts.blob_checks.forget()
            return
        result = self._parts.blob_checks.ask(check.release, check.epoch)
        if result is not None:
            self._parts.log.write(result)

    def _send_probes(self, duty: SendProbes | None) -> None:
        stage, routing = self.state.stage, self.state.routing
        if duty is None or routing is None or not isinstance(stage, Examining):
            self._run = None
            return
        if self._run is None or self._run.duty.run != duty.run:
            parts = self._parts
            self._run = ProbeRun(
                duty,
                probes=parts.probes,
                settings=self._section.probes,
                producer=parts.producer,
                topics=parts.topics,
                chooser_of=parts.chooser_of,
                name=self._name,
                clock=parts.clock,
            )
            if stage.sent_at is None:
                parts.log.write(self._run.announcement())
        if stage.sent_at is not None:
            self._run.step(stage, routing)

    def _keep_checkpoint(self) -> None:
        if self._since_checkpoint < self._section.checkpoint_records or self._pending:
            return
        self._since_checkpoint = 0
        self._parts.checkpoint.save(self.state)
