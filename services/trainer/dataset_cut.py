"""From what waits to a stored dataset and a run that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from schemas.event import Domain
from schemas.releases import OffsetRange
from services.trainer.core.dataset import DatasetOrigin, build_dataset
from services.trainer.core.effects import Effect
from services.trainer.core.ledger_state import LoggedDocument, Run, TaughtRow, document_key
from services.trainer.core.lifecycle import Ledger
from services.trainer.core.selection import Selection, no_flaw, select_rows
from services.trainer.core.training_schedule import ORDERED, StartTraining
from services.trainer.release_reader import ReleaseReader
from services.trainer.settings import TrainerSection
from services.trainer.token_budget import open_token_budget
from twinloop.canonical import digest_of
from twinloop.registry.blobs import BlobStore
from twinloop.retrieval.document import Document

_LOOK_AGAIN_MS = 60_000


@dataclass(frozen=True)
class TopicNames:
    """Full names of the topics whose offsets a dataset records."""

    feedback: str
    documents: str


class DatasetCutter:
    """Selects, builds, stores; changes the ledger only once everything it needs is in the store."""

    def __init__(
        self,
        store: BlobStore,
        reader: ReleaseReader,
        settings: TrainerSection,
        *,
        classifiers: tuple[str, ...],
        topics: TopicNames,
    ) -> None:
        self._store = store
        self._reader = reader
        self._settings = settings
        self._classifiers = classifiers
        self._topics = topics

    def cut(self, ledger: Ledger, start: StartTraining, *, now_ms: int) -> list[Effect]:
        """Begin a run in `ledger` from what `start` names, or postpone its domains where nothing of it may teach.

        Raises Transient or ArtifactError where store or parent cannot be read; then nothing has changed.
        """
        active = ledger.state.active
        assert active is not None, "a schedule starts nothing without an active release"
        documents, idle = self._documents(ledger, start, parent=active.release)
        least = 1 if start.reason == ORDERED else self._settings.schedule_policy().floor
        selections = {
            domain: _worth_training(
                self._select(ledger, domain, parent=active.release, now_ms=now_ms), least=least
            )
            for domain in start.domains
        }
        rows = tuple(
            TaughtRow(row=item.row, passage=item.passage)
            for selection in selections.values()
            for item in selection.kept
        )
        domains = tuple(
            domain
            for domain in start.domains
            if selections[domain].kept or any(item.change.domain == domain for item in documents)
        )
        run = self._stored_run(
            ledger,
            start,
            rows=rows,
            documents=documents,
            selections=selections,
            domains=domains,
            now_ms=now_ms,
        )
        ledger.drop_documents(idle)
        told: list[Effect] = []
        for domain, selection in selections.items():
            told += ledger.drop_unselected(selection, now_ms)
            if domain not in domains:
                ledger.postpone(domain, now_ms + _LOOK_AGAIN_MS)
        if run is not None:
            ledger.begin_run(run)
        return told

    def _select(self, ledger: Ledger, domain: Domain, *, parent: str, now_ms: int) -> Selection:
        stored = self._reader.documents(parent, domain)
        budget = open_token_budget(
            self._store, self._reader.release(parent).release, source=self._settings.foundation.source
        )

        def find_passage(of: str, document_id: str) -> str | None:
            waiting = ledger.state.documents.get(document_key(domain, document_id))
            if waiting is not None:
                return waiting.change.text if waiting.change.op == "upsert" else None
            known = stored.get(document_id)
            return known.text if known is not None and of == domain else None

        return select_rows(
            [row for row in ledger.state.pending.values() if row.domain == domain],
            policy=ledger.policy.selection,
            taught=ledger.buffer(domain).rows(),
            find_passage=find_passage,
            citation_pattern=self._settings.selection.citation_pattern,
            now_ms=now_ms,
            find_flaw=no_flaw if budget is None else budget.flaw,
        )

    def _documents(
        self, ledger: Ledger, start: StartTraining, *, parent: str
    ) -> tuple[tuple[LoggedDocument, ...], list[str]]:
        """(changes that change the parent's index, keys of those that do not)."""
        news, idle = [], []
        for key, document in sorted(ledger.state.documents.items()):
            change = document.change
            if change.domain not in start.domains:
                continue
            stored = self._reader.documents(parent, change.domain).get(change.document_id)
            wanted = Document.from_change(change) if change.op == "upsert" else None
            if wanted == stored:
                idle.append(key)
            else:
                news.append(document)
        return tuple(news), idle

    def _stored_run(
        self,
        ledger: Ledger,
        start: StartTraining,
        *,
        rows: tuple[TaughtRow, ...],
        documents: tuple[LoggedDocument, ...],
        selections: Mapping[Domain, Selection],
        domains: tuple[Domain, ...],
        now_ms: int,
    ) -> Run | None:
        if not domains:
            return None
        active = ledger.state.active
        assert active is not None
        seed = self._settings.seed + ledger.state.give_backs
        retaught = {item.row.question_key: item.row.answer_key for item in rows}
        dataset = build_dataset(
            rows,
            replay=[
                row
                for domain in sorted({item.row.domain for item in rows})
                for row in ledger.buffer(domain).rows()
                if retaught.get(row.question_key, row.answer_key) == row.answer_key
            ],
            documents=documents,
            selections=selections,
            origin=DatasetOrigin(
                parent=active.release,
                seed=seed,
                licence=self._settings.feedback_licence,
                classifiers=self._classifiers,
                offsets=self._offsets(rows, documents),
            ),
        )
        for blob in dataset.blobs.values():
            self._store.put(blob)
        digest = self._store.put(dataset.manifest)
        return Run(
            run_id=digest_of({"dataset": digest, "parent": active.release}),
            dataset=digest,
            parent=active.release,
            domains=domains,
            reason=start.reason,
            rows=rows,
            documents=documents,
            offsets=self._offsets(rows, documents),
            seed=seed,
            started_at=now_ms,
        )

    def _offsets(
        self, rows: tuple[TaughtRow, ...], documents: tuple[LoggedDocument, ...]
    ) -> tuple[OffsetRange, ...]:
        """The smallest ranges that hold the dataset's own records, so that nothing else read meanwhile shows in it."""
        places: dict[tuple[str, int], list[int]] = {}
        for item in rows:
            places.setdefault((self._topics.feedback, item.row.order.partition), []).append(
                item.row.order.offset
            )
        for document in documents:
            _, partition, offset = document.logged
            places.setdefault((self._topics.documents, partition), []).append(offset)
        return tuple(
            OffsetRange(topic=topic, partition=partition, first=min(offsets), end=max(offsets) + 1)
            for (topic, partition), offsets in sorted(places.items())
        )


def _worth_training(selection: Selection, *, least: int) -> Selection:
    """The selection, or one that keeps nothing and so leaves its rows waiting where they are too few."""
    return selection if len(selection.kept) >= least else replace(selection, kept=())
