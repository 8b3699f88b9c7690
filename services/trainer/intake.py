"""Records in, ledger changed, things to tell out: decodes, checks signatures and asks the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.commands import Command
from schemas.decisions import Decision
from schemas.documents import DocumentChange
from schemas.event import DOMAINS, Domain
from schemas.feedback import Feedback
from services.trainer.core.cleaning import (
    CleaningPolicy,
    ReceiptFacts,
    Verdict,
    examine_receipt,
    examine_text,
)
from services.trainer.core.effects import Effect
from services.trainer.core.lifecycle import Ledger
from services.trainer.core.rows import LogOrder
from services.trainer.screening import Screen
from services.trainer.settings import CleaningSettings
from twinloop.bus.records import Record
from twinloop.codec import decode
from twinloop.errors import CommandRefused, InvalidEvent, SignatureError
from twinloop.receipts import question_digest, read_receipt
from twinloop.retrieval.document import Document
from twinloop.signing import KeyRing, verify_document


class Lineage(Protocol):
    """Knows where releases come from."""

    def lineage(self, release: str) -> tuple[str, ...]:
        """The release, its parent and so on; raises Transient where the store does not answer."""


class Intake:
    """Takes one record of any topic the trainer reads."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        ring: KeyRing,
        screen: Screen,
        lineage: Lineage,
        cleaning: CleaningPolicy,
        settings: CleaningSettings,
    ) -> None:
        self._ledger = ledger
        self._ring = ring
        self._screen = screen
        self._lineage = lineage
        self._cleaning = cleaning
        self._settings = settings

    def take_feedback(self, record: Record) -> Sequence[Effect]:
        """Judge one feedback; a known id does nothing. Raises InvalidEvent for what is no feedback."""
        feedback = decode(record, Feedback)
        if self._ledger.is_known(feedback.id):
            return []
        order = _order(record)
        try:
            receipt = read_receipt(feedback.receipt, self._ring)
        except SignatureError as error:
            verdict = Verdict("rejected", f"receipt: {error}"[:500])
            return self._ledger.note_feedback(
                feedback, verdict, domain=None, release=None, is_imported=False, order=order
            )
        facts = ReceiptFacts(
            is_import=receipt.kind == "import",
            query_id=receipt.query_id,
            question_sha256=receipt.question_sha256,
            domain=receipt.domain,
            release=receipt.release,
            issued_at=receipt.issued_at,
        )
        return self._ledger.note_feedback(
            feedback,
            self._verdict(feedback, facts, logged_at=record.timestamp_ms),
            domain=facts.domain,
            release=facts.release,
            is_imported=facts.is_import,
            order=order,
        )

    def take_document(self, record: Record) -> None:
        """Take one document change; raises InvalidEvent for one that is unreadable, unapproved or unsafe."""
        where = f"{record.topic}[{record.partition}]@{record.offset}"
        if record.value is None:
            raise InvalidEvent(
                f"{where}: a document is taken out by a `delete` change, not by an empty record"
            )
        change = decode(record, DocumentChange)
        if change.op == "upsert":
            self._approve(change, where)
        self._ledger.note_document(change, order=_order(record))

    def take_decision(self, record: Record) -> Sequence[Effect]:
        """Fold one decision; progress lines and repeated epochs do nothing. Raises InvalidEvent, SignatureError."""
        declared = record.header("ce_type")
        if declared is not None and declared != Decision.type.encode():
            return []
        decision = decode(record, Decision)
        verify_document(decision.state, self._ring, role="gatekeeper")
        if not self._ledger.is_news(decision):
            return []
        return self._ledger.note_decision(
            decision, lineage=self._lineage.lineage(decision.state.active_release)
        )

    def take_command(self, record: Record) -> str | None:
        """Obey `train`, and `pause` or `resume` of training; returns what was done, None for others' commands.

        Raises CommandRefused for one that is unsigned, expired, repeated or not understood.
        """
        command = decode(record, Command)
        is_switch = command.action in ("pause", "resume") and command.parameters.get("what") == "training"
        if command.action != "train" and not is_switch:
            return None
        try:
            verify_document(command, self._ring, role="operator")
        except SignatureError as error:
            raise CommandRefused(f"command {command.nonce}: {error}") from error
        if not command.issued_at <= record.timestamp_ms + 60_000 or record.timestamp_ms > command.expires_at:
            raise CommandRefused(f"command {command.nonce} was logged outside its time of validity")
        if not self._ledger.is_new_nonce(command.nonce):
            raise CommandRefused(f"command {command.nonce} was obeyed before")
        if is_switch:
            self._ledger.note_pause(command.action == "pause")
            return command.action
        self._ledger.note_command(command.nonce, domains=_domains(command))
        return "train"

    def _verdict(self, feedback: Feedback, facts: ReceiptFacts, *, logged_at: int) -> Verdict:
        refused = examine_receipt(
            feedback,
            facts,
            self._cleaning,
            question_sha256=question_digest(feedback.question),
            logged_at=logged_at,
        )
        if refused is not None:
            return refused
        if feedback.correction is None:
            return examine_text(feedback, self._cleaning, ())
        texts = {"question": feedback.question, "correction": feedback.correction}
        return examine_text(feedback, self._cleaning, self._screen.findings(texts))

    def _approve(self, change: DocumentChange, where: str) -> None:
        document = Document.from_change(change)
        publishers, licences = self._settings.approved_publishers, self._settings.approved_licences
        if publishers and document.publisher not in publishers:
            raise InvalidEvent(f"{where}: publisher is not among trainer.cleaning.approved_publishers")
        if licences and document.licence not in licences:
            raise InvalidEvent(f"{where}: licence is not among trainer.cleaning.approved_licences")
        for finding in self._screen.findings({"title": document.title, "text": document.text}):
            if self._settings.document_actions.get(finding.label, "reject") != "ignore":
                raise InvalidEvent(f"{where}: {finding.detector} found {finding.label} in {finding.field}")


def _order(record: Record) -> LogOrder:
    return LogOrder(record.timestamp_ms, record.partition, record.offset)


def _domains(command: Command) -> tuple[Domain, ...]:
    wanted = command.parameters.get("domain")
    if wanted is None:
        return DOMAINS
    found = tuple(domain for domain in DOMAINS if domain == wanted)
    if not found:
        raise CommandRefused(f"command {command.nonce}: domain is not one of {', '.join(DOMAINS)}")
    return found
