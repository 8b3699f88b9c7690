"""Proposed changes with keys, store and topics: who signed them, whether they are sound, what they would move."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.changes import ChangeProposed, ChangeReviewed, ChangeStatus, ReleaseDocuments
from services.trainer.core.changes import ChangeBook, audit, audit_review
from services.trainer.core.effects import Effect
from services.trainer.core.ledger_state import ActiveView, Change, ComposedChange, LedgerState, Run
from services.trainer.release_reader import ReleaseReader
from services.trainer.settings import ChangeSettings
from twinloop.bus.records import Record
from twinloop.canonical import canonical_json, digest_of, sha256_hex
from twinloop.changes.allowed_paths import AuthorKind
from twinloop.changes.change_log import decode_change
from twinloop.changes.patching import Documents, apply_change
from twinloop.changes.refusal import ChangeRefused
from twinloop.changes.route_replay import Question, route_report
from twinloop.errors import ArtifactError, CommandRefused, ConfigError, SignatureError
from twinloop.orders import VALID_MS
from twinloop.registry.blobs import BlobStore
from twinloop.routing.domain_choice import DomainChooser
from twinloop.signing import KeyRing, Role, verify_document
from twinloop.telemetry.logging import get_logger

NO_DATASET = canonical_json({"version": 1, "kind": "empty"})
"""A release that only applies a change has learnt nothing."""

RecordedQueries = Callable[[], Sequence[Question]]


class ChangeDesk:
    """Takes proposals and reviews, examines what was proposed, and composes what was approved."""

    def __init__(
        self,
        state: LedgerState,
        *,
        settings: ChangeSettings,
        store: BlobStore,
        ring: KeyRing,
        reader: ReleaseReader,
        queries: RecordedQueries,
        probes: Sequence[Question],
        seed: int,
    ) -> None:
        self._state = state
        self._book = ChangeBook(state, settings.limits())
        self._policy = settings.policy()
        self._store, self._ring, self._reader = store, ring, reader
        self._queries, self._probes = queries, probes
        self._seed = seed
        self._log = get_logger("trainer")

    # -- records ---------------------------------------------------------------------------------------------------

    def take(self, record: Record) -> Sequence[Effect]:
        """One record of the topic; raises InvalidEvent for what is none of its events."""
        event = decode_change(record)
        if isinstance(event, ChangeStatus):
            self._book.take_status(event)
            return []
        at = record.timestamp_ms
        try:
            if isinstance(event, ChangeProposed):
                is_program = self._signed_by(event, ("operator", "approver", "trainer")) == "trainer"
                return self._book.take_proposal(event, automatic=is_program, at=at)
            self._check_review(event, at)
            told = self._book.take_review(event, at=at)
        except (CommandRefused, SignatureError) as error:
            self._log.warning("change_refused", reason=str(error))
            return [_refusal(event, str(error), at)]
        return [*told, audit_review(event, "accepted", event.reason, at)]

    def _check_review(self, review: ChangeReviewed, logged_at: int) -> None:
        allowed: tuple[Role, ...] = ("approver",) if review.verdict == "approve" else ("operator", "approver")
        self._signed_by(review, allowed)
        if "trainer" in self._ring.roles_of(review.key_id):
            raise CommandRefused("a program's key reviews nothing: a person has to")
        if abs(logged_at - review.reviewed_at) > VALID_MS:
            raise CommandRefused("the review was logged outside its minute of validity; give it again")

    def _signed_by(self, event: ChangeProposed | ChangeReviewed, allowed: Sequence[Role]) -> Role:
        """In which of these roles the event was signed; a key that may act as a program counts as one."""
        roles = self._ring.roles_of(event.key_id)
        role = next((each for each in reversed(allowed) if each in roles), allowed[0])
        verify_document(event, self._ring, role=role)
        return role

    # -- examination -----------------------------------------------------------------------------------------------

    def examine(self, now_ms: int) -> list[Effect]:
        """Look at what was proposed, once the active release is known; raises Transient where an edge is silent."""
        active = self._state.active
        waiting = self._book.received()
        if active is None or not waiting:
            return []
        told: list[Effect] = []
        try:
            base, names = self._documents(active.release)
        except (ArtifactError, SignatureError, ConfigError) as error:
            self._log.error("change_base_unusable", release=active.release, reason=str(error))
            why = f"rules and prompt of the active release cannot be read: {error}"
            for change in waiting:
                told += self._book.refuse(change.proposal.id, "invalid", why, now_ms)
            return told
        queries = self._queries()
        chooser = DomainChooser(base.rules)
        for change in waiting:
            proposal = change.proposal
            try:
                after = self._applied(change, base, names)
            except ChangeRefused as error:
                told += self._book.refuse(proposal.id, error.code, str(error), now_ms)
                self._log.info("change_refused", change=proposal.id, code=error.code)
                continue
            report = route_report(
                chooser,
                chooser if after.rules == base.rules else DomainChooser(after.rules),
                queries=queries,
                probes=self._probes,
                prompt_changed=after.prompt != base.prompt,
            )
            told += self._book.open(proposal.id, _digests(after, base, names), report, now_ms)
            self._log.info("change_open", change=proposal.id, moved=report.moved, queries=report.queries)
        return told

    def _applied(self, change: Change, base: Documents, names: ReleaseDocuments) -> Documents:
        wanted = change.proposal.base
        if wanted != names:
            raise ChangeRefused(
                "stale",
                f"the patch is for rules {wanted.rules[:12]} and prompt {wanted.prompt[:12]}, the active release has "
                f"{names.rules[:12]} and {names.prompt[:12]}; write it for those",
            )
        author: AuthorKind = "program" if change.automatic else "person"
        return apply_change(base, change.proposal.patch, self._policy, author=author)

    def _documents(self, release: str) -> tuple[Documents, ReleaseDocuments]:
        stored = self._reader.release(release).release
        names = ReleaseDocuments(rules=stored.rules, prompt=stored.prompt)
        return Documents.read(self._store.get(stored.rules), self._store.get(stored.prompt)), names

    # -- releases --------------------------------------------------------------------------------------------------

    def next_run(self, now_ms: int) -> tuple[Run | None, list[Effect]]:
        """The run that applies the oldest approved change, where nothing stands in its way.

        The policy in force is asked once more: what it forbids by now is not applied, whoever approved it.
        """
        change = self._book.next_approved()
        active = self._state.active
        if change is None or active is None or change.review is None:
            return None, []
        name = change.proposal.id
        try:
            base, names = self._documents(active.release)
            after = self._applied(change, base, names)
            documents = _digests(after, base, names)
            if documents.rules != names.rules:
                self._store.put(after.rules_bytes)
            if documents.prompt != names.prompt:
                self._store.put(after.prompt_bytes)
            proposal = self._store.put(canonical_json(change.proposal))
            review = self._store.put(canonical_json(change.review))
            self._store.put(NO_DATASET)
        except (ChangeRefused, ArtifactError, SignatureError, ConfigError) as error:
            self._log.warning("change_failed", change=name, reason=type(error).__name__)
            return None, self._book.fail(name, f"it could not be applied: {error}", now_ms)
        return (
            Run(
                run_id=digest_of({"change": name, "parent": active.release}),
                dataset=sha256_hex(NO_DATASET),
                parent=active.release,
                domains=(),
                reason="change",
                rows=(),
                documents=(),
                offsets=(),
                seed=self._seed,
                started_at=now_ms,
                change=ComposedChange(
                    id=name,
                    documents=documents,
                    author=change.proposal.author,
                    approved_by=change.review.reviewer,
                    proposal=proposal,
                    review=review,
                ),
            ),
            [],
        )

    def propose_release(self, run: Run, release: str, at: int) -> list[Effect]:
        """A run became a release; nothing is said where it applied no change."""
        if run.change is None:
            return []
        return self._book.propose_release(run.change.id, release, run.parent, at)

    def fail(self, run: Run, why: str, at: int) -> list[Effect]:
        """A run came to nothing."""
        return [] if run.change is None else self._book.fail(run.change.id, why, at)

    def follow(self, before: ActiveView | None, at: int) -> list[Effect]:
        """Settle every change by what the ledger says now."""
        if not self._state.changes:
            return []
        return self._book.follow(documents=self._active_documents(), before=before, at=at)

    def _active_documents(self) -> ReleaseDocuments | None:
        if self._state.active is None:
            return None
        try:
            release = self._reader.release(self._state.active.release).release
        except (ArtifactError, SignatureError):
            return None  # the lineage has told it already
        return ReleaseDocuments(rules=release.rules, prompt=release.prompt)


def _digests(after: Documents, base: Documents, names: ReleaseDocuments) -> ReleaseDocuments:
    """Digests of the documents a change leads to; one that is not changed keeps the name it has."""
    made = after.digests
    return ReleaseDocuments(
        rules=names.rules if after.rules == base.rules else made.rules,
        prompt=names.prompt if after.prompt == base.prompt else made.prompt,
    )


def _refusal(event: ChangeProposed | ChangeReviewed, why: str, at: int) -> Effect:
    if isinstance(event, ChangeProposed):
        return audit(event, "refused", why, at)
    return audit_review(event, "refused", why, at)
