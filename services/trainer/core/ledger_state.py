"""Everything the trainer knows, as values that a checkpoint writes and a restart reads back."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.changes import ChangeProposed, ChangeReviewed, ChangeStage, ReleaseDocuments, RouteReport
from schemas.documents import DocumentChange
from schemas.event import DOMAINS, Domain, EpochMs, Frozen, Sha256
from schemas.feedback import Feedback
from schemas.releases import OffsetRange
from services.trainer.core.input_drift import QuestionWindow
from services.trainer.core.replay_buffer import BufferState
from services.trainer.core.rows import PendingRow


class TaughtRow(Frozen):
    """A row of a dataset with the passage it was rendered with."""

    row: PendingRow
    passage: str | None


class LoggedDocument(Frozen):
    """A document change and when its record was logged."""

    change: DocumentChange
    logged: tuple[int, int, int]
    """Timestamp, partition and offset of its record."""

    @property
    def logged_at(self) -> int:
        return self.logged[0]

    @property
    def key(self) -> str:
        return document_key(self.change.domain, self.change.document_id)


class Change(Frozen):
    """A proposed change of rules or prompt and how far it has come."""

    proposal: ChangeProposed
    automatic: bool
    """Proposed by a program."""
    noted_at: EpochMs
    stage: ChangeStage | Literal["received"] = "received"
    was_open: bool = False
    """Its log says that it was open before: it is being read again."""
    review: ChangeReviewed | None = None
    """The approval that counts; of a change that was not examined yet, one read again."""
    documents: ReleaseDocuments | None = None
    """What it leads to."""
    report: RouteReport | None = None
    release: Sha256 | None = None
    parent: Sha256 | None = None
    """Parent of its release."""


class ComposedChange(Frozen):
    """The part of a run that applies an approved change."""

    id: str
    documents: ReleaseDocuments
    author: str
    approved_by: str
    proposal: Sha256
    """The signed proposal, as it is in the store."""
    review: Sha256
    """The signed approval, as it is in the store."""


class Run(Frozen):
    """One training, decided: everything it depends on is in the dataset or named here."""

    run_id: Sha256
    """Digest of dataset and parent."""
    dataset: Sha256
    parent: Sha256
    domains: tuple[Domain, ...]
    reason: str
    rows: tuple[TaughtRow, ...]
    documents: tuple[LoggedDocument, ...]
    offsets: tuple[OffsetRange, ...]
    seed: int
    started_at: EpochMs
    attempt: int = 1
    composes: Sha256 | None = None
    """A release that failed in other domains: this run takes its parts of `domains` and trains nothing."""
    change: ComposedChange | None = None
    """An approved change of rules or prompt: this run applies it to the active release and trains nothing."""


class Candidate(Frozen):
    """A proposed release and what it was made from, kept while a decision can still change what that means."""

    release: Sha256
    parent: Sha256
    rows: tuple[TaughtRow, ...]
    documents: tuple[LoggedDocument, ...]
    proposed_at: EpochMs
    dataset: Sha256 | None = None
    """What it was trained on; absent in ledgers written before it was kept."""
    seed: int = 0
    stage: Literal["undecided", "promoted"] = "undecided"


class ActiveView(Frozen):
    """What the last decision says."""

    incarnation: str
    epoch: int
    release: Sha256
    lineage: tuple[Sha256, ...]
    """The active release, its parent, its parent's parent and so on, as far as was looked."""
    revoked: tuple[Sha256, ...]
    line: str = ""
    """The decision in one readable line."""


class LedgerState(BaseModel):
    """Mutable; changed by `Ledger` alone."""

    model_config = ConfigDict(extra="forbid")

    pending: dict[str, PendingRow] = {}
    seen: dict[str, None] = {}
    """Feedback ids that were dealt with, oldest first, bounded."""
    retracted: dict[str, str] = {}
    """Ids withdrawn before they were seen, with the rater who withdrew them, oldest first, bounded."""
    buffers: dict[Domain, BufferState] = {domain: BufferState() for domain in DOMAINS}
    documents: dict[str, LoggedDocument] = {}
    """Changes that the active release does not hold yet, by domain and id."""
    held_documents: dict[str, LoggedDocument] = {}
    """Changes of a release that failed: left out until the document changes again or an operator asks."""
    ratings: dict[Domain, list[int]] = {domain: [] for domain in DOMAINS}
    """1 for each `down`, 0 for each `up`, newest last."""
    questions: dict[Domain, QuestionWindow] = {domain: QuestionWindow() for domain in DOMAINS}
    """What each domain is asked, as far as feedback shows it."""
    run: Run | None = None
    candidates: dict[str, Candidate] = {}
    """Undecided and recently promoted releases by id, oldest first."""
    failed_releases: list[str] = []
    """Ids that failed, oldest first, bounded; the gatekeeper refuses a second proposal of any id."""
    frozen_releases: dict[str, str] = {}
    """Releases that turned bad in their bake, with the reason, oldest first, bounded: what is said about their answers
    teaches nobody."""
    ended_releases: list[str] = []
    """Ids that were superseded or returned, oldest first, bounded."""
    give_backs: int = 0
    """Candidates on the active release that came back undecided: added to the seed, so that a repetition is new."""
    active: ActiveView | None = None
    commanded: dict[Domain, str] = {}
    """Domains an operator wants trained, with the command's nonce."""
    nonces: list[str] = []
    changes: dict[str, Change] = {}
    """Proposed changes by id, oldest first, bounded."""
    ended_changes: list[str] = []
    """Ids of changes that are over and no longer among them, oldest first, bounded: none of them is looked at again."""
    is_paused: bool = False
    last_started_at: int | None = None
    not_before: dict[Domain, int] = {}
    """A domain whose rows made no dataset is looked at again at this time, or when something new comes."""


class Quarantine(Frozen):
    """A row to be kept aside for a person."""

    feedback: Feedback
    reason: str
    detector: str


def document_key(domain: Domain, document_id: str) -> str:
    return f"{domain} {document_id}"
