"""What becomes of every feedback and document: a fold of feedback, documents and decisions that says what to tell.

waiting -> in training -> proposed -> trained; back to waiting when a candidate is superseded or its parent is no longer
active; to quarantine when it fails. Statuses carry the log's times, so that reading the log again tells the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas.decisions import Decision
from schemas.documents import DocumentChange
from schemas.event import DOMAINS, Domain
from schemas.feedback import Feedback
from services.trainer.core.cleaning import Verdict
from services.trainer.core.effects import (
    Effect,
    ending_of,
    frozen_release,
    harmed_domains,
    remember,
    replay_row,
    set_aside,
    status_of,
)
from services.trainer.core.input_drift import input_shift, note_question, rebase
from services.trainer.core.ledger_state import (
    ActiveView,
    Candidate,
    LedgerState,
    LoggedDocument,
    Run,
    TaughtRow,
)
from services.trainer.core.replay_buffer import ReplayBuffer, ReplayPolicy, open_buffer
from services.trainer.core.rows import LogOrder, PendingRow, ReplayRow
from services.trainer.core.selection import Selection, SelectionPolicy, over_rater_quota
from services.trainer.core.training_schedule import DomainNews, Readiness
from twinloop.canonical import digest_of

_UNTIL_NEWS_MS = 365 * 86_400_000


@dataclass(frozen=True)
class LifecyclePolicy:
    """Bounds of what is remembered."""

    selection: SelectionPolicy = field(default_factory=SelectionPolicy)
    replay: ReplayPolicy = field(default_factory=ReplayPolicy)
    max_seen_ids: int = 50_000
    """Feedback ids remembered, so that a repeated id does nothing."""
    max_kept_releases: int = 8
    """Promoted releases whose rows can still go back to waiting or to quarantine after a rollback."""
    candidate_patience_s: float = 6 * 3600.0
    """A candidate without a decision for this long counts as superseded."""
    rating_window: int = 200
    """Ratings remembered a domain."""
    question_window: int = 200
    """Questions remembered a domain, as hashed words."""
    least_questions: int = 50
    """Fewer recent questions do not tell whether a domain is asked about other things."""
    max_attempts: int = 2
    """How often one dataset is trained before its rows are quarantined."""


class Ledger:
    """The trainer's state and the only code that changes it; no clock, no I/O."""

    def __init__(self, policy: LifecyclePolicy, state: LedgerState) -> None:
        self.policy = policy
        self.state = state

    def buffer(self, domain: Domain) -> ReplayBuffer:
        """The domain's replay buffer."""
        return open_buffer(self.policy.replay, self.state.buffers[domain])

    def rehearse(self, fresh: ReplayRow) -> None:
        """Put a row that a promoted release was taught into its buffer, in place of what it overturns."""
        buffer = self.buffer(fresh.domain)
        # What was taught about this question before and is not true any more must not be rehearsed.
        outdated = [
            row.id
            for row in buffer.rows()
            if row.question_key == fresh.question_key and row.answer_key != fresh.answer_key
        ]
        buffer.remove(outdated)
        buffer.add([fresh])

    # -- what comes in ---------------------------------------------------------------------------------------------

    def is_known(self, feedback_id: str) -> bool:
        """True where this id was dealt with: its repetition is to be ignored without a word."""
        return feedback_id in self.state.seen

    def note_feedback(
        self,
        feedback: Feedback,
        verdict: Verdict,
        *,
        domain: Domain | None,
        release: str | None,
        is_imported: bool,
        order: LogOrder,
    ) -> list[Effect]:
        """Take in one feedback of a new id with what cleaning said about it."""
        remember(self.state.seen, feedback.id, None, self.policy.max_seen_ids)
        at = order.timestamp_ms
        told: list[Effect] = []
        if verdict.status in ("rejected", "quarantined"):
            return set_aside(feedback, verdict, domain=domain, at=at)
        if feedback.retracts is not None:
            refusal = self._retract(feedback.retracts, feedback.rater, told, at)
            if refusal is not None:
                return [status_of(feedback, "rejected", reason=refusal, domain=domain, at=at)]
        # A rating that brings its correction counts as a row already: drift is what users say without one.
        if domain is not None and feedback.rating is not None and feedback.correction is None:
            window = self.state.ratings[domain]
            window.append(int(feedback.rating == "down"))
            del window[: -self.policy.rating_window]
        if domain is not None:
            note_question(self.state.questions[domain], feedback.question, size=self.policy.question_window)
        if verdict.status == "counted" or domain is None or release is None:
            return [*told, status_of(feedback, "counted", domain=domain, at=at)]
        if self.state.retracted.get(feedback.id) == feedback.rater:
            return [*told, status_of(feedback, "rejected", reason="retracted", domain=domain, at=at)]
        if release in self.state.frozen_releases and not is_imported:
            return [*told, *set_aside(feedback, self._frozen(release), domain=domain, at=at)]
        row = PendingRow(
            feedback=feedback, domain=domain, release=release, is_imported=is_imported, logged=order
        )
        self.state.pending[row.id] = row
        self.state.not_before.pop(domain, None)
        told.append(status_of(feedback, "accepted", domain=domain, at=at))
        return told + self._enforce_quota(at, of=(row.domain, row.rater))

    def note_document(self, change: DocumentChange, *, order: LogOrder) -> None:
        """Take in one document change; the last change of a document holds."""
        document = LoggedDocument(change=change, logged=order)
        self.state.held_documents.pop(document.key, None)
        self.state.documents[document.key] = document
        self.state.not_before.pop(change.domain, None)

    def note_command(self, nonce: str, *, domains: Iterable[Domain]) -> None:
        """An operator wants what waits in these domains trained now, held documents included.

        A domain in which nothing waits is left alone: the order is not for what comes later.
        """
        for domain in domains:
            for key, document in list(self.state.held_documents.items()):
                if document.change.domain == domain:
                    self.state.documents[key] = self.state.held_documents.pop(key)
            rows = any(row.domain == domain for row in self.state.pending.values())
            if rows or any(document.change.domain == domain for document in self.state.documents.values()):
                self.state.commanded[domain] = nonce

    def note_pause(self, is_paused: bool) -> None:
        """Stop or allow starting trainings; one that runs goes on."""
        self.state.is_paused = is_paused

    def is_new_nonce(self, nonce: str) -> bool:
        """True once for each nonce."""
        if nonce in self.state.nonces:
            return False
        self.state.nonces.append(nonce)
        del self.state.nonces[:-1000]
        return True

    # -- decisions -------------------------------------------------------------------------------------------------

    def is_news(self, decision: Decision) -> bool:
        """True for the first record of a higher epoch or of another incarnation."""
        active = self.state.active
        if active is None or decision.state.incarnation != active.incarnation:
            return True
        return decision.epoch > active.epoch

    def note_decision(self, decision: Decision, *, lineage: Sequence[str]) -> list[Effect]:
        """Settle every proposed release by a decision for which `is_news` holds; `lineage` opens with the active."""
        state = decision.state
        is_restart = self.state.active is not None and state.incarnation != self.state.active.incarnation
        if self.state.active is None or self.state.active.release != state.active_release:
            self.state.give_backs = 0
        self.state.active = ActiveView(
            incarnation=state.incarnation,
            epoch=decision.epoch,
            release=state.active_release,
            lineage=tuple(lineage),
            revoked=state.revoked,
            line=decision.line,
        )
        told: list[Effect] = []
        for candidate in list(self.state.candidates.values()):
            told += self._settle(candidate, decision, is_restart=is_restart)
        if self.state.run is not None and self.state.run.parent != state.active_release:
            told += self.cancel_run(decision.decided_at)
        frozen = frozen_release(decision)
        return told if frozen is None else told + self._freeze(*frozen, at=decision.decided_at)

    def _freeze(self, release: str, reason: str, *, at: int) -> list[Effect]:
        """Set aside what waits and was said about a release's answers, and whatever is still said about them."""
        remember(self.state.frozen_releases, release, reason, self.policy.max_kept_releases)
        rows = [row for row in self.state.pending.values() if row.release == release and not row.is_imported]
        told: list[Effect] = []
        for row in rows:
            del self.state.pending[row.id]
            told += set_aside(row.feedback, self._frozen(release), domain=row.domain, at=at)
        return told

    def _frozen(self, release: str) -> Verdict:
        reason = f"release_frozen:rollback:{self.state.frozen_releases[release]}"
        return Verdict("quarantined", reason[:500], "gatekeeper")

    def _settle(self, candidate: Candidate, decision: Decision, *, is_restart: bool) -> list[Effect]:
        active = self.state.active
        assert active is not None
        at = decision.decided_at
        if candidate.release in active.lineage:
            return [] if candidate.stage == "promoted" else self._promote(candidate, at)
        outcome = ending_of(decision, candidate.release) if candidate.stage == "undecided" else None
        if candidate.release in active.revoked or outcome == "failed":
            frozen = frozen_release(decision)
            is_named = decision.release == candidate.release or (frozen and frozen[0] == candidate.release)
            reason = decision.reason if is_named else "release_revoked"
            harmed = harmed_domains(decision, candidate.release)
            if harmed and candidate.stage == "undecided":
                return self._spare(candidate, harmed, f"{decision.kind}:{reason}", at)
            return self._fail(candidate, f"{decision.kind}:{reason}", at)
        is_waiting = candidate.stage == "undecided" and candidate.parent == active.release
        if is_waiting and outcome is None and not is_restart:
            return []
        return self._give_back(candidate, at)

    def expire_candidates(self, now_ms: int) -> list[Effect]:
        """Take back the rows of candidates that nobody decided about for too long."""
        told: list[Effect] = []
        for candidate in list(self.state.candidates.values()):
            age_ms = now_ms - candidate.proposed_at
            if candidate.stage == "undecided" and age_ms > self.policy.candidate_patience_s * 1000:
                told += self._give_back(candidate, now_ms)
        return told

    def _promote(self, candidate: Candidate, at: int) -> list[Effect]:
        for taught in candidate.rows:
            self.rehearse(replay_row(taught, update=candidate.release))
        for domain in {item.row.domain for item in candidate.rows}:
            self.state.ratings[domain].clear()
            rebase(self.state.questions[domain])
        self.state.candidates[candidate.release] = candidate.model_copy(update={"stage": "promoted"})
        promoted = [name for name, item in self.state.candidates.items() if item.stage == "promoted"]
        for name in promoted[: -self.policy.max_kept_releases]:
            del self.state.candidates[name]
        return [
            status_of(item.row.feedback, "trained", domain=item.row.domain, release=candidate.release, at=at)
            for item in candidate.rows
        ]

    def _fail(self, candidate: Candidate, reason: str, at: int) -> list[Effect]:
        del self.state.candidates[candidate.release]
        self._forget_taught(candidate)
        self._hold_documents(candidate.documents)
        self.state.failed_releases.append(candidate.release)
        del self.state.failed_releases[:-100]
        return self._quarantine(candidate.rows, f"release_failed:{reason}", at)

    def _spare(self, candidate: Candidate, harmed: frozenset[str], reason: str, at: int) -> list[Effect]:
        """Fail what belongs to the harmed domains; the rest becomes a release of its own, judged from its start."""
        rows = tuple(item for item in candidate.rows if item.row.domain not in harmed)
        documents = tuple(item for item in candidate.documents if item.change.domain not in harmed)
        lost = candidate.model_copy(
            update={
                "rows": tuple(item for item in candidate.rows if item.row.domain in harmed),
                "documents": tuple(item for item in candidate.documents if item.change.domain in harmed),
            }
        )
        told = self._fail(lost, reason, at)
        domains = tuple(
            sorted({*(item.row.domain for item in rows), *(item.change.domain for item in documents)})
        )
        if not domains:
            return told
        active = self.state.active
        is_possible = active is not None and candidate.parent == active.release and self.state.run is None
        if candidate.dataset is None or not is_possible:
            return told + self._wait_again(rows, documents, reason="release_failed_elsewhere", at=at)
        self.state.run = Run(
            run_id=digest_of({"composes": candidate.release, "domains": list(domains)}),
            dataset=candidate.dataset,
            parent=candidate.parent,
            domains=domains,
            reason="partial",
            rows=rows,
            documents=documents,
            offsets=(),
            seed=candidate.seed,
            started_at=at,
            composes=candidate.release,
        )
        return told

    def _give_back(self, candidate: Candidate, at: int) -> list[Effect]:
        del self.state.candidates[candidate.release]
        self.state.ended_releases.append(candidate.release)
        del self.state.ended_releases[:-100]
        self.state.give_backs += 1
        self._forget_taught(candidate)
        return self._wait_again(candidate.rows, candidate.documents, reason="release_superseded", at=at)

    def _forget_taught(self, candidate: Candidate) -> None:
        if candidate.stage == "promoted":
            for taught in candidate.rows:
                self.buffer(taught.row.domain).remove([taught.row.id])

    # -- runs ------------------------------------------------------------------------------------------------------

    def news(self, now_ms: int) -> dict[Domain, DomainNews]:
        """What waits, by domain; a postponed domain shows nothing."""
        return {
            domain: DomainNews() if now_ms < self.state.not_before.get(domain, 0) else self._news(domain)
            for domain in DOMAINS
        }

    def _news(self, domain: Domain) -> DomainNews:
        rows = [row for row in self.state.pending.values() if row.domain == domain]
        changes = [item for item in self.state.documents.values() if item.change.domain == domain]
        ratings = self.state.ratings[domain]
        return DomainNews(
            rows=len(rows),
            oldest_row_at=min((row.order.timestamp_ms for row in rows), default=None),
            documents=len(changes),
            oldest_document_at=min((item.logged_at for item in changes), default=None),
            ratings=len(ratings),
            down_ratings=sum(ratings),
            input_shift=input_shift(self.state.questions[domain], least=self.policy.least_questions),
        )

    def readiness(self) -> Readiness:
        """Whether a training may start."""
        undecided = [item for item in self.state.candidates.values() if item.stage == "undecided"]
        return Readiness(
            has_active_release=self.state.active is not None,
            is_paused=self.state.is_paused,
            is_running=self.state.run is not None,
            has_undecided_candidate=bool(undecided),
            last_started_at=self.state.last_started_at,
        )

    def drop_unselected(self, selection: Selection, at: int) -> list[Effect]:
        """Take the rows out that a selection refused, and say why."""
        told: list[Effect] = []
        for name, reason in selection.rejected.items():
            row = self.state.pending.pop(name)
            told.append(status_of(row.feedback, "rejected", reason=reason, domain=row.domain, at=at))
        rows = [self.state.pending.pop(name) for name in selection.quarantined]
        for row in rows:
            verdict = Verdict("quarantined", selection.quarantined[row.id], "selection")
            told += set_aside(row.feedback, verdict, domain=row.domain, at=at)
        return told

    def begin_run(self, run: Run) -> None:
        """Move the run's rows and documents out of what waits."""
        for taught in run.rows:
            del self.state.pending[taught.row.id]
        for document in run.documents:
            del self.state.documents[document.key]
        for domain in run.domains:
            self.state.commanded.pop(domain, None)
        self.state.run = run
        self.state.last_started_at = run.started_at

    def drop_documents(self, keys: Iterable[str]) -> None:
        """Forget waiting changes that change nothing."""
        for key in keys:
            self.state.documents.pop(key, None)

    def postpone(self, domain: Domain, until_ms: int) -> None:
        """Leave a domain alone until then, or until something new comes: nothing in it made a dataset."""
        self.state.not_before[domain] = until_ms
        self.state.commanded.pop(domain, None)

    def cancel_run(self, at: int) -> list[Effect]:
        """Put everything of the running training back to where it waited."""
        run, self.state.run = self.state.run, None
        if run is None:
            return []
        return self._wait_again(run.rows, run.documents, reason=None, at=at)

    def retry_run(self) -> bool:
        """Count one more attempt at the running training; False where its attempts are used up."""
        run = self.state.run
        assert run is not None
        if run.attempt >= self.policy.max_attempts:
            return False
        self.state.run = run.model_copy(update={"attempt": run.attempt + 1})
        return True

    def fail_run(self, reason: str, at: int) -> list[Effect]:
        """End the running training for good: its rows are quarantined, its documents held."""
        run, self.state.run = self.state.run, None
        assert run is not None
        self._hold_documents(run.documents)
        return self._quarantine(run.rows, f"training_failed:{reason}", at)

    def is_candidate(self, release: str) -> bool:
        """True where the release is proposed or serves."""
        return release in self.state.candidates

    def finish_run(self, release: str, at: int) -> list[Effect]:
        """The run became a proposed release; one whose id was decided about before is not to be proposed again.

        Returns what to tell then, and nothing where the release is to be proposed.
        """
        run = self.state.run
        assert run is not None
        if release in self.state.failed_releases:
            return self.fail_run("same_release_failed_before", at)
        if release in self.state.ended_releases:
            # An index refresh gives the same release again: it waits until something else comes with it.
            told = self.cancel_run(at)
            for domain in run.domains:
                self.postpone(domain, at + _UNTIL_NEWS_MS)
            return told
        self.state.run = None
        self.state.candidates[release] = Candidate(
            release=release,
            parent=run.parent,
            rows=run.rows,
            documents=run.documents,
            proposed_at=at,
            dataset=run.dataset,
            seed=run.seed,
        )
        return []

    # -- shared steps ----------------------------------------------------------------------------------------------

    def _retract(self, target: str, rater: str, told: list[Effect], at: int) -> str | None:
        """Withdraw `target` wherever it is; the reason where this rater may not."""
        row = self._find(target)
        if row is None:
            replayed = next((r for d in DOMAINS for r in self.buffer(d).rows() if r.id == target), None)
            if replayed is not None and replayed.rater != rater:
                return "not_the_same_rater"
            if replayed is not None:
                self.buffer(replayed.domain).remove([target])
            remember(self.state.retracted, target, rater, self.policy.max_seen_ids)
            return None
        if row.rater != rater:
            return "not_the_same_rater"
        if self.state.run is not None and any(item.row.id == target for item in self.state.run.rows):
            told += self.cancel_run(at)
        self.state.pending.pop(target, None)
        self.buffer(row.domain).remove([target])
        for name, candidate in list(self.state.candidates.items()):
            rest = tuple(item for item in candidate.rows if item.row.id != target)
            self.state.candidates[name] = candidate.model_copy(update={"rows": rest})
        told.append(status_of(row.feedback, "rejected", reason="retracted", domain=row.domain, at=at))
        return None

    def _find(self, name: str) -> PendingRow | None:
        if name in self.state.pending:
            return self.state.pending[name]
        taught = [*(self.state.run.rows if self.state.run else ())]
        for candidate in self.state.candidates.values():
            taught += candidate.rows
        return next((item.row for item in taught if item.row.id == name), None)

    def _wait_again(
        self,
        rows: Iterable[TaughtRow],
        documents: Iterable[LoggedDocument],
        *,
        reason: str | None,
        at: int,
    ) -> list[Effect]:
        told: list[Effect] = []
        for item in rows:
            self.state.pending[item.row.id] = item.row
            self.state.not_before.pop(item.row.domain, None)
            if reason is not None:
                told.append(
                    status_of(item.row.feedback, "accepted", reason=reason, domain=item.row.domain, at=at)
                )
        for document in documents:
            self.state.documents.setdefault(document.key, document)  # a newer change came meanwhile: it holds
            self.state.not_before.pop(document.change.domain, None)
        return told + self._enforce_quota(at)

    def _enforce_quota(self, at: int, *, of: tuple[Domain, str] | None = None) -> list[Effect]:
        rows = [row for row in self.state.pending.values() if of is None or (row.domain, row.rater) == of]
        told: list[Effect] = []
        for row in over_rater_quota(rows, self.policy.selection):
            del self.state.pending[row.id]
            told.append(status_of(row.feedback, "rejected", reason="rater_quota", domain=row.domain, at=at))
        return told

    def _hold_documents(self, documents: Iterable[LoggedDocument]) -> None:
        for document in documents:
            if document.key not in self.state.documents:
                self.state.held_documents[document.key] = document

    def _quarantine(self, rows: Iterable[TaughtRow], reason: str, at: int) -> list[Effect]:
        told: list[Effect] = []
        for item in rows:
            verdict = Verdict("quarantined", reason[:500], "gatekeeper" if "release" in reason else "trainer")
            told += set_aside(item.row.feedback, verdict, domain=item.row.domain, at=at)
        return told
