"""Foreign or recorded events through the shipped tally and judge, offline: what would have been decided?

The file's traffic stays as it was recorded: a verdict of this judge moves nobody to another release. So a row counts
for the arm its release has in this judge's eyes, its window belongs to the epoch this judge is in, and the share of
traffic a window was cut with is the recorded one. What a file cannot hold is assumed: workers are ready, blobs are
whole, signatures and roles are valid.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from schemas.answers import Evaluation
from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.commands import Command
from schemas.decisions import Decision, Progress
from schemas.event import SLOTS, Arm, Sha256
from schemas.feedback import Feedback, FeedbackStatus
from schemas.gate_inputs import (
    Applied,
    BlobsChecked,
    Body,
    CommandSeen,
    FeedbackCounts,
    GateInput,
    Genesis,
    ProbeAnswer,
    ProbeMeasurement,
    ProbesSent,
    ProposalSeen,
    QaResults,
    ReadinessSeen,
    Tick,
)
from schemas.outcomes import OutcomeBatch, OutcomeRow
from schemas.releases import ReleaseProposed
from services.gatekeeper.core.canary import start_canary
from services.gatekeeper.core.effects import CheckBlobs, Effect, PublishDecision, PublishProgress
from services.gatekeeper.core.fold import duties, fold
from services.gatekeeper.core.guardrail import rating_scope
from services.gatekeeper.core.mirroring import after_examination
from services.gatekeeper.core.policy import GatePolicy, policy_change
from services.gatekeeper.core.probes import ProbeSet, parse_query_id
from services.gatekeeper.core.rating_windows import PartitionRatings, Rating
from services.gatekeeper.core.state import Bake, CanaryRun, Examining, JudgeState, Mirroring
from services.gatekeeper.core.tally import PartitionCopies, PartitionTally
from services.gatekeeper.core.turn import Turn
from services.gatekeeper.event_file import EventLine
from services.gatekeeper.recorded_shares import Shares, recorded_shares
from twinloop.canonical import digest_of, sha256_hex
from twinloop.errors import ConfigError
from twinloop.statistics.windows import WindowPolicy

NAME = "what-if"
NO_COPIES = "the file holds no mirrored copy, so mirrored traffic is taken as passed"
NO_EXAM = "the file holds no evaluation, so the examination is taken as passed"
_READY_MS = 5000


@dataclass(frozen=True)
class WhatIf:
    """What to judge by."""

    policy: GatePolicy
    windows: WindowPolicy
    software: str
    probes: ProbeSet | None = None
    """Where absent, a probe is answered rightly when it is answered."""
    after_s: float = 0.0
    """How long the judge goes on watching after the last line."""
    tell: Callable[[str], None] = field(default=lambda _line: None)
    """Told what is assumed and what is left out."""

    def decide(self, lines: Iterable[EventLine]) -> Iterator[Decision]:
        """The unsigned decisions, in order. Raises ConfigError where the lines name no release to begin with."""
        return _Judge(self, tuple(lines)).run()


class _Judge:
    def __init__(self, question: WhatIf, lines: tuple[EventLine, ...]) -> None:
        if not lines:
            raise ConfigError("the file holds no readable event; nothing can be judged")
        self._question, self._lines = question, lines
        self._shares: Shares = recorded_shares(lines, question.policy.ramp.basis_points)
        self._has_copies = any(
            row.purpose == "mirror"
            for line in lines
            if isinstance(line.event, AssignmentBatch)
            for row in line.event.rows
        )
        self._has_exams = any(line.topic == "evaluations" for line in lines)
        self.state = JudgeState()
        self._now = lines[0].at
        self._ready_at = 0
        self._offset = -1
        self._share = 0
        self._rows = 0
        self._until = 0
        """Time by which every window of the rows so far is closed."""
        self._tally = PartitionTally(0, question.windows, share_of=lambda _epoch: self._share)
        rated = question.policy.ratings
        self._ratings = (
            None
            if rated is None
            else PartitionRatings(0, window_s=rated.window_s, maturity_s=rated.maturity_s)
        )
        self._asked: dict[str, AssignmentRow] = {}
        """By query id, who answered it: a file's ratings are joined by it, as receipts need not verify here."""
        self._copies = PartitionCopies(0, question.windows, closed_until=self._now / 1000)
        self._results: dict[str, list[ProbeAnswer | ProbeMeasurement]] = {}
        self._strangers: set[str] = set()
        self._judged: set[str] = set()
        """Releases that were one of the arms at some time."""
        self._decided: deque[Decision] = deque()
        self._progress: Progress | None = None

    def run(self) -> Iterator[Decision]:
        self._begin()
        yield from self._take_decided()
        for line in self._lines:
            yield from self._pass_time(line.at)
            self._take(line)
            yield from self._take_decided()
        yield from self._pass_time(max(self._until, self._now + round(self._question.after_s * 1000)))
        stage = self.state.stage
        if stage is not None:
            said = f": {self._progress.line}" if self._progress is not None else ""
            self._question.tell(f"the file ends in stage {stage.name}{said}")

    def _begin(self) -> None:
        first = self._first_release()
        name = sha256_hex("".join(f"{line.at}{line.topic}" for line in self._lines).encode())
        self._write(
            policy_change(self._question.policy, software=self._question.software, origin_partitions=1)
        )
        self._write(Tick(now=self._now))
        self._write(Genesis(incarnation=name[:32], release=first, rules=digest_of(f"rules of {first}")))
        for note in self._shares.notes:
            self._question.tell(note)

    def _first_release(self) -> Sha256:
        proposals: list[Sha256] = []
        for line in self._lines:
            if isinstance(line.event, AssignmentBatch):
                found = next((r for r in line.event.rows if r.arm == "active" and r.purpose == "user"), None)
                if found is not None:
                    return found.release
            if isinstance(line.event, ReleaseProposed) and line.event.release.parent is not None:
                proposals.append(line.event.release.parent)
        if not proposals:
            raise ConfigError("no assignment of the active arm and no proposal with a parent: what serves?")
        return proposals[0]

    def _pass_time(self, until: int) -> Iterator[Decision]:
        """Tick up to `until` as a running gatekeeper would, closing windows on the way."""
        max_gap_ms = round(self._question.policy.watch.max_gap_s * 1000)
        while True:
            step = min(1000 if self.state.stage is not None else 5000, max_gap_ms // 2)
            now = min(self._now + step, until)
            if now <= self._now:
                return
            self._now = now
            self._report_readiness()
            self._write(Tick(now=now))
            self._close(now)
            yield from self._take_decided()

    def _close(self, now: int) -> None:
        routing = self.state.routing
        for tally in self._tally.close(now / 1000):
            if routing is not None and tally.window.total.shadow.queries > 0:
                # The judge knows its own shares; the traffic was split by the recorded one.
                self._tell_share(tally.window.epoch, tally.window.canary_bp)
            self._write(tally)
        if self._ratings is not None:
            self._ratings.watch(rating_scope(self.state))
            for rated in self._ratings.close(now / 1000):
                self._write(FeedbackCounts(counts={}, ratings=rated))
        if self._has_copies:
            for copies in self._copies.close(now / 1000):
                self._write(copies)

    def _tell_share(self, epoch: int, share: int) -> None:
        self.state = self.state.model_copy(update={"shares": {**self.state.shares, epoch: share}})

    def _report_readiness(self) -> None:
        routing = self.state.routing
        if routing is None or self._now - self._ready_at < _READY_MS:
            return
        self._ready_at = self._now
        for slot in SLOTS:
            self._write(
                ReadinessSeen(
                    worker=f"assumed-{slot}",
                    service="inference",
                    slot=slot,
                    epoch=routing.epoch,
                    releases=routing.resident,
                    seen_at=self._now,
                )
            )

    def _write(self, body: Body) -> None:
        self._offset += 1
        self.state, effects = fold(self.state, GateInput(by=NAME, body=body), self._offset)
        self._carry_out(effects)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, PublishDecision):
                self._decided.append(effect.decision)
                self._ready_at = 0  # Whatever became resident is reported ready with the next tick.
                self._write(Applied(epoch=effect.decision.epoch, result="installed", took_us=0))
            elif isinstance(effect, PublishProgress):
                self._progress = effect.progress
        self._do_duties()

    def _do_duties(self) -> None:
        for duty in duties(self.state):
            if isinstance(duty, CheckBlobs):
                self._write(BlobsChecked(release=duty.release, epoch=duty.epoch, ok=True))
        stage = self.state.stage
        if isinstance(stage, Mirroring) and not self._has_copies:
            self._skip_mirroring(stage)
        if not isinstance(stage, Examining) or stage.sent_at is not None:
            return
        if self._has_exams:
            self._examine(stage)
        else:
            self._skip_examination(stage)

    def _examine(self, stage: Examining) -> None:
        needs = self._probes_of(stage.candidate.release)
        digest = (
            self._question.probes.digest if self._question.probes else digest_of(dict(sorted(needs.items())))
        )
        self._write(ProbesSent(run=stage.run, digest=digest, probes=tuple(sorted(needs.items()))))
        for result in self._results.pop(stage.candidate.release, []):
            self._write_result(result, stage)

    def _skip_examination(self, stage: Examining) -> None:
        self._question.tell(f"{stage.candidate.release[:8]}: {NO_EXAM}")
        turn = Turn(self.state, self.state.offset)
        after_examination(turn, stage.candidate, qa={"reason_code": "assumed", "rows": [{"line": NO_EXAM}]})
        self.state = turn.state
        self._carry_out(turn.effects)

    def _skip_mirroring(self, stage: Mirroring) -> None:
        self._question.tell(f"{stage.candidate.release[:8]}: {NO_COPIES}")
        turn = Turn(self.state, self.state.offset)
        start_canary(turn, stage.candidate, qa=stage.qa)
        self.state = turn.state
        self._carry_out(turn.effects)

    def _probes_of(self, release: Sha256) -> dict[str, bool]:
        """Every probe this file answers for a release, and whether its answer needs a citation."""
        needs: dict[str, bool] = {}
        for line in self._lines:
            event = line.event
            if isinstance(event, Evaluation) and event.purpose == "qa" and event.release == release:
                needs.setdefault(_probe(event.query_id), False)
            elif isinstance(event, OutcomeBatch):
                for row in event.rows:
                    if row.purpose == "qa" and row.release == release:
                        needs[_probe(row.id)] = row.citation in ("valid", "invalid", "missing")
        known = self._question.probes.probes if self._question.probes else {}
        return {**{name: probe.needs_citation for name, probe in known.items()}, **needs}

    def _take(self, line: EventLine) -> None:
        event = line.event
        if isinstance(event, AssignmentBatch):
            self._assigned(event)
        elif isinstance(event, OutcomeBatch):
            self._answered(event)
        elif isinstance(event, Evaluation):
            self._evaluated(event)
        elif isinstance(event, ReleaseProposed):
            self._proposed(event)
        elif isinstance(event, Command):
            self._write(CommandSeen(command=event, verdict="allowed"))
        elif isinstance(event, Feedback):
            self._rated(event)
        elif isinstance(event, FeedbackStatus):
            self._write(FeedbackCounts(counts={event.status: 1}))

    def _proposed(self, event: ReleaseProposed) -> None:
        problems = "; ".join(event.evidence.problems)
        self._write(
            ProposalSeen(
                release=event.release_id,
                parent=event.release.parent,
                rules=event.release.rules,
                proposed_by=event.proposed_by,
                verdict="broken" if problems else "valid",
                detail=problems[:500],
            )
        )

    def _assigned(self, batch: AssignmentBatch) -> None:
        for epoch in sorted({row.epoch for row in batch.rows}):
            self._share = self._shares.of(epoch)
            rows = tuple(row for r in batch.rows if r.epoch == epoch if (row := self._seen_as(r)) is not None)
            if not rows:
                continue
            self._rows += 1
            seen = AssignmentBatch(origin=0, router=batch.router, rows=rows)
            self._asked.update({row.id: row for row in rows if row.purpose == "user"})
            self._tally.assigned(seen, self._rows)
            self._copies.assigned(seen, self._rows)
            wait_s = self._question.windows.grace_s + self._question.windows.lateness_s + 2
            self._until = max(self._until, max(row.deadline_at for row in rows) + round(wait_s * 1000))

    def _seen_as(self, row: AssignmentRow) -> AssignmentRow | None:
        """A recorded row in the judge's own words; None where its release has no place in them."""
        routing = self.state.routing
        if routing is None or row.purpose == "qa":
            return None
        if row.purpose == "mirror":
            if not self._is_copied_to(row.release):
                return None
            return row.model_copy(update={"arm": "shadow", "epoch": routing.epoch})
        arm = self._arm(row.release)
        if arm is None:
            return None
        bucket = row.bucket if self._shares.has_buckets(row.epoch) else 9999 if arm == "active" else 0
        return row.model_copy(update={"arm": arm, "epoch": routing.epoch, "bucket": bucket})

    def _is_copied_to(self, release: Sha256) -> bool:
        """Whether the judge waits for copies to this release."""
        stage, routing = self.state.stage, self.state.routing
        if isinstance(stage, Mirroring):
            return release == stage.candidate.release
        return isinstance(stage, Bake) and routing is not None and release == routing.previous

    def _arm(self, release: Sha256) -> Arm | None:
        routing, stage = self.state.routing, self.state.stage
        if routing is not None and release == routing.active_release:
            self._judged.add(release)
            return "active"
        if isinstance(stage, CanaryRun) and release == stage.candidate.release:
            self._judged.add(release)
            return "shadow"
        if release not in self._strangers:
            self._strangers.add(release)
            self._question.tell(
                f"{release[:8]}: its rows count for nothing while it is neither active nor in its canary"
            )
        return None

    def _rated(self, feedback: Feedback) -> None:
        """Count a thumb for the release that answered the query, where the file says which one did."""
        row = self._asked.get(feedback.query_id)
        if self._ratings is None:
            return
        self._ratings.watch(rating_scope(self.state))
        if feedback.retracts is not None:
            self._ratings.retracted(feedback.retracts, feedback.rater)
        if row is None or feedback.rating is None:
            return
        self._rows += 1
        rating = Rating(
            feedback_id=feedback.id,
            query_id=feedback.query_id,
            rater=feedback.rater,
            release=row.release,
            epoch=row.epoch,
            unit=row.unit,
            answered_at=row.assigned_at / 1000,
            is_down=feedback.rating == "down",
        )
        self._ratings.rated(rating, self._rows)

    def _answered(self, batch: OutcomeBatch) -> None:
        rows = tuple(row for row in batch.rows if row.purpose == "user" and row.release in self._judged)
        if rows:
            self._rows += 1
            self._tally.answered(batch.model_copy(update={"origin": 0, "rows": rows}), self._rows)
        copies = tuple(row for row in batch.rows if row.purpose == "mirror")
        if copies:
            self._rows += 1
            self._copies.answered(batch.model_copy(update={"origin": 0, "rows": copies}), self._rows)
        for row in batch.rows:
            if row.purpose == "qa":
                self._keep(_measured(row))

    def _evaluated(self, event: Evaluation) -> None:
        if event.purpose != "qa" or event.release is None:
            return
        name = _probe(event.query_id)
        probe = self._question.probes.probes.get(name) if self._question.probes else None
        self._keep(
            ProbeAnswer(
                run="recorded",
                side="candidate",
                probe=name,
                release=event.release,
                error=event.error.kind if event.error else None,
                cites=bool(event.citations) and all(cited.retrieved for cited in event.citations),
                as_expected=probe.is_met_by(event.text or "") if probe else None,
            )
        )

    def _keep(self, result: ProbeAnswer | ProbeMeasurement) -> None:
        """A result goes to the examination it belongs to, or waits for that to begin."""
        stage = self.state.stage
        if isinstance(stage, Examining) and stage.candidate.release == result.release:
            self._write_result(result, stage)
        elif result.release is not None:
            self._results.setdefault(result.release, []).append(result)

    def _write_result(self, result: ProbeAnswer | ProbeMeasurement, stage: Examining) -> None:
        mine = result.model_copy(update={"run": stage.run})
        if isinstance(mine, ProbeAnswer):
            self._write(QaResults(answers=(mine,)))
        else:
            self._write(QaResults(measurements=(mine,)))

    def _take_decided(self) -> Iterator[Decision]:
        while self._decided:
            yield self._decided.popleft()


def _probe(query_id: str) -> str:
    named = parse_query_id(query_id)
    return query_id if named is None else named[2]


def _measured(row: OutcomeRow) -> ProbeMeasurement:
    return ProbeMeasurement(
        run="recorded",
        side="candidate",
        probe=_probe(row.id),
        release=row.release,
        error=row.error,
        latency_ms=row.latency_ms,
        toxic=row.toxic,
        citation=row.citation,
    )
