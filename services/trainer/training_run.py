"""One run from its dataset to a published release: learning jobs, index refresh, evidence, signature."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from schemas.event import Domain
from schemas.releases import Release, ReleaseProposed, SignatureBlock
from services.trainer.child_process import WarmProcess
from services.trainer.core.dataset import REPLAY, ROWS, blob_digests, training_material
from services.trainer.core.evidence import fisher_of, training_evidence
from services.trainer.core.ledger_state import Run
from services.trainer.core.model_card import ModelCard
from services.trainer.learning_job import LearningJobs, Learnt, Lesson
from services.trainer.release_reader import ReleaseReader
from services.trainer.settings import TrainerSection
from twinloop.canonical import canonical_json
from twinloop.errors import ArtifactError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.manifests import put_manifest, read_files
from twinloop.registry.releases import publish_release
from twinloop.retrieval.document import Document
from twinloop.retrieval.embedder import Embedder
from twinloop.retrieval.index import DomainIndex
from twinloop.signing import KeyRing, Signer


@dataclass(frozen=True)
class Tools:
    """What a run needs besides its own values."""

    store: BlobStore
    ring: KeyRing
    signer: Signer
    embedder: Embedder
    settings: TrainerSection
    classifiers: tuple[str, ...]
    work_folder: Path
    process: WarmProcess
    now_ms: Callable[[], int]


@dataclass(frozen=True)
class _Parts:
    """What a new release has that its parent has not, by domain."""

    adapters: Mapping[Domain, str]
    indexes: Mapping[Domain, str]
    metrics: Mapping[Domain, Mapping[str, JsonValue]]
    fisher: Mapping[str, str]


class TrainingRun:
    """Does one run; every step may be repeated after a crash and gives the same release."""

    def __init__(self, tools: Tools, run: Run) -> None:
        self._tools = tools
        self._run = run
        self._reader = ReleaseReader(tools.store, tools.ring)

    def execute(self, cancel: threading.Event) -> ReleaseProposed:
        """Train, refresh, publish; raises TrainingFailed, Cancelled, and Transient or ArtifactError of the store."""
        known = proposed_before(self._tools, self._run)
        if known is not None:
            return known
        parent = self._reader.release(self._run.parent)
        if self._run.composes is not None:
            parts = self._spared(self._run.composes)
        elif self._run.change is not None:
            parts = _Parts(adapters={}, indexes={}, metrics={}, fisher={})
        else:
            parts = self._made(parent.release, fisher_of(parent.evidence), cancel)
        changed = {} if self._run.change is None else self._run.change.documents.model_dump()
        release = parent.release.model_copy(
            update={
                "adapters": {**parent.release.adapters, **parts.adapters},
                "indexes": {**parent.release.indexes, **parts.indexes},
                "parent": self._run.parent,
                **changed,
            }
        )
        name = self._publish(release, parent.release, fisher_of(parent.evidence), parts)
        # Written before anybody can decide about the release: a restart finds it and does not train again.
        self._tools.store.put_document_if_absent(_run_name(self._run), canonical_json({"release": name}))
        return proposal(self._tools, self._reader, name)

    def _made(self, parent: Release, fisher: Mapping[str, str], cancel: threading.Event) -> _Parts:
        learnt = self._learn(parent, fisher, cancel)
        return _Parts(
            adapters={domain: item.adapter for domain, item in learnt.items()},
            indexes=self._refresh(parent),
            metrics={domain: _told(item.metrics) for domain, item in learnt.items()},
            fisher={str(d): item.fisher for d, item in learnt.items() if item.fisher is not None},
        )

    def _spared(self, failed: str) -> _Parts:
        """What a release that failed in other domains changed in this run's own: nothing is trained again."""
        stored = self._reader.release(failed)
        changed, evidence = stored.release, stored.evidence
        measured = evidence.metrics.get("domains")
        known = measured if isinstance(measured, dict) else {}
        fisher = fisher_of(evidence)
        metrics: dict[Domain, Mapping[str, JsonValue]] = {}
        for domain in self._run.domains:
            values = known.get(domain)
            if isinstance(values, dict):
                metrics[domain] = _told(values)
        return _Parts(
            adapters={domain: changed.adapters[domain] for domain in self._run.domains},
            indexes={domain: changed.indexes[domain] for domain in self._run.domains},
            metrics=metrics,
            fisher={domain: fisher[domain] for domain in self._run.domains if domain in fisher},
        )

    def _learn(
        self, parent: Release, fisher: Mapping[str, str], cancel: threading.Event
    ) -> dict[Domain, Learnt]:
        tools, seed = self._tools, self._run.seed
        blobs = blob_digests(tools.store.get(self._run.dataset))
        rows, replay = tools.store.get(blobs[ROWS]), tools.store.get(blobs[REPLAY])
        jobs = LearningJobs(
            tools.store, tools.settings, artifacts=tools.work_folder / "artifacts", process=tools.process
        )
        lessons = [
            Lesson(
                domain, training_material(rows, replay, domain=domain, seed=seed), fisher.get(domain), seed
            )
            for domain in sorted({item.row.domain for item in self._run.rows})
        ]
        return jobs.learn(lessons, parent, folder=self._folder, cancel=cancel)

    def _refresh(self, parent: Release) -> dict[Domain, str]:
        store, embedder = self._tools.store, self._tools.embedder
        if self._run.documents and embedder.digest != parent.embedder:
            raise ArtifactError(
                f"release {self._run.parent} was indexed with embedder {parent.embedder}, trainer.embedder is "
                f"{embedder.name} {embedder.digest}; set it to the release's own"
            )
        fresh: dict[Domain, str] = {}
        for domain in sorted({item.change.domain for item in self._run.documents}):
            changes = [item.change for item in self._run.documents if item.change.domain == domain]
            files = read_files(store, parent.indexes[domain], kind="index")
            index = DomainIndex.load(files, embedder, domain=domain).apply(
                [Document.from_change(change) for change in changes if change.op == "upsert"],
                [change.document_id for change in changes if change.op == "delete"],
                kind_for=self._tools.settings.index.kind_for,
            )
            fresh[domain] = put_manifest(store, "index", index.files())
        return fresh

    def _publish(self, release: Release, parent: Release, fisher: Mapping[str, str], parts: _Parts) -> str:
        tools, run, metrics = self._tools, self._run, parts.metrics
        licence = tools.settings.feedback_licence
        fisher_now: dict[str, JsonValue] = {**fisher, **parts.fisher}
        card = ModelCard(run, release, parent, licence, metrics, tools.settings.evidence_policy())
        artifacts: dict[str, JsonValue] = {
            "fisher": fisher_now,
            "card_json": tools.store.put(card.to_json()),
            "card_markdown": tools.store.put(card.to_markdown()),
        }
        evidence = training_evidence(
            run,
            metrics=metrics,
            artifacts=artifacts,
            classifiers=tools.classifiers,
            policy=tools.settings.evidence_policy(),
            finished_at=tools.now_ms(),
        )
        local = None if tools.store.exists(release.foundation) else release.foundation
        return publish_release(
            tools.store,
            release,
            evidence,
            lambda payload: sign_block(tools.signer, payload),
            local_foundation=local,
        )

    @property
    def _folder(self) -> Path:
        return self._tools.work_folder / "runs" / self._run.run_id


def proposed_before(tools: Tools, run: Run) -> ReleaseProposed | None:
    """The proposal this run already led to in an earlier life of the process, if any."""
    if not tools.store.has_document(_run_name(run)):
        return None
    name = json.loads(tools.store.get_document(_run_name(run)))["release"]
    return proposal(tools, ReleaseReader(tools.store, tools.ring), name)


def proposal(tools: Tools, reader: ReleaseReader, name: str) -> ReleaseProposed:
    """The signed proposal of a published release; equal for equal releases, whenever it is made."""
    stored = reader.release(name)
    unsigned = ReleaseProposed(
        release_id=name,
        release=stored.release,
        evidence=stored.evidence,
        proposed_by=tools.signer.key_id,
        proposed_at=stored.evidence.finished_at,
    )
    plain = unsigned.model_dump(mode="json")
    plain.pop("signed")
    return unsigned.model_copy(update={"signed": sign_block(tools.signer, canonical_json(plain))})


def sign_block(signer: Signer, payload: bytes) -> SignatureBlock:
    return SignatureBlock(key_id=signer.key_id, signature=signer.sign(payload))


def sweep(work_folder: Path, *, keep: str | None) -> None:
    """Delete the folders of runs that are over; artifacts stay, they are verified whenever they are used."""
    runs = work_folder / "runs"
    for folder in runs.iterdir() if runs.is_dir() else ():
        if folder.name != keep:
            shutil.rmtree(folder, ignore_errors=True)


def _run_name(run: Run) -> str:
    return f"runs/{run.run_id}.json"


def _told(metrics: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Without the loss of every step: evidence travels in records of limited size."""
    return {name: value for name, value in metrics.items() if name != "loss"}
