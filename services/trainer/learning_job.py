"""Job folders, one a domain: written from stored artifacts, done by one child, their results stored again."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from schemas.event import Domain
from schemas.releases import Release
from services.trainer.child_process import TimedOut, WarmProcess
from services.trainer.core.dataset import TrainingMaterial, split_general_rows, to_jsonl
from services.trainer.settings import TrainerSection
from twinloop.canonical import canonical_json
from twinloop.errors import ArtifactError, ConfigError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.digests import sha256_of_file, sha256_of_hub_model
from twinloop.registry.manifests import digest_folder, materialise, put_folder

_FINAL = {2: "the job or its rows are unusable", 4: "training diverged"}
"""Exit statuses that a repetition would only repeat."""
_REFUSED = 3
"""Exit status of a child that was given a damaged artifact: the store's fault, not that of the rows."""


class TrainingFailed(Exception):
    """A training gave no adapter; `is_final` where trying again would give the same."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True)
class Learnt:
    """What one job stored, and what it measured."""

    adapter: str
    fisher: str | None
    metrics: Mapping[str, JsonValue]


@dataclass(frozen=True)
class Lesson:
    """What a domain's training is made of besides the release it starts from."""

    domain: Domain
    material: TrainingMaterial
    fisher: str | None
    seed: int


class LearningJobs:
    """Does the lessons of one run in one child; every step may be repeated after a crash."""

    def __init__(
        self, store: BlobStore, settings: TrainerSection, *, artifacts: Path, process: WarmProcess
    ) -> None:
        self._store = store
        self._settings = settings
        self._artifacts = artifacts
        self._process = process

    def learn(
        self, lessons: Sequence[Lesson], parent: Release, *, folder: Path, cancel: threading.Event
    ) -> dict[Domain, Learnt]:
        """Train each domain; raises TrainingFailed, Cancelled, and Transient or ArtifactError of the store."""
        if not lessons:
            return {}
        settings = self._settings.job
        prompt: dict[str, JsonValue] = json.loads(self._store.get(parent.prompt))
        folders = {lesson.domain: folder / lesson.domain for lesson in lessons}
        for lesson in lessons:
            self._write_job(lesson, parent, prompt, folder=folders[lesson.domain])
        try:
            ended = self._process.take().do(
                [path / "job.json" for path in folders.values()],
                folder=folder,
                timeout_s=settings.timeout_s * len(lessons),
                grace_s=settings.stop_grace_s,
                cancel=cancel,
            )
        except TimedOut as error:
            limit = settings.timeout_s * len(lessons)
            raise TrainingFailed(f"ran longer than {limit:g} s", is_final=False) from error
        if ended.status != 0:
            domain = Path(ended.failed_job).parent.name if ended.failed_job else "the child"
            if ended.failed_job is not None and ended.status == _REFUSED:
                raise ArtifactError(
                    f"{domain}: the child refused an artifact it was given; {folder / 'stderr.log'} names it; "
                    "restore it or make it again"
                )
            is_final = ended.failed_job is not None and ended.status in _FINAL
            reason = _FINAL[ended.status] if is_final else "it ended early"
            raise TrainingFailed(f"{domain}: exit status {ended.status}, {reason}", is_final=is_final)
        return {domain: self._store_result(domain, path / "out") for domain, path in folders.items()}

    def _write_job(
        self, lesson: Lesson, parent: Release, prompt: Mapping[str, JsonValue], *, folder: Path
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        domain, material = lesson.domain, lesson.material
        adapter = materialise(self._store, parent.adapters[domain], self._artifacts, kind="adapter")
        job: dict[str, JsonValue] = {
            "version": 1,
            "foundation": self._foundation(parent.foundation),
            "prompt": dict(prompt),
            "domain": domain,
            "parent": {"adapter": str(adapter), "fisher": self._fisher(lesson.fisher)},
            "settings": dict(self._settings.job.learning),
            "seed": lesson.seed,
            "output": "out/",
        }
        general, probes = self._general(domain)
        files = {
            "rows": material.rows,
            "gate_rows": material.gate_rows,
            "replay_rows": material.replay_rows,
            "general_rows": general,
            "probe_rows": probes,
        }
        for name, rows in files.items():
            if rows:
                (folder / f"{name}.jsonl").write_bytes(to_jsonl(rows))
                job[name] = f"{name}.jsonl"
        (folder / "job.json").write_bytes(canonical_json(job))

    def _foundation(self, digest: str) -> dict[str, JsonValue]:
        settings = self._settings.foundation
        source, revision = settings.source, settings.revision
        if self._store.exists(digest):
            source = str(materialise(self._store, digest, self._artifacts, kind="foundation"))
            revision = None
        else:
            found, named = _configured_foundation(source, revision)
            if found != digest:
                raise ArtifactError(
                    f"foundation {digest}, which the parent release names, is neither in {self._store.url} nor the "
                    f"one that trainer.foundation names, {named} with digest {found}; set that to the parent's own"
                )
        return {
            "source": source,
            "digest": None,
            "revision": revision,
            "dtype": settings.dtype,
            "device": settings.device,
            "threads": settings.threads,
        }

    def _fisher(self, digest: str | None) -> str | None:
        if digest is None:
            return None
        path = self._artifacts / f"{digest}.safetensors"
        if not path.exists() or sha256_of_file(path)[0] != digest:
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._store.fetch_to(digest, path)
        return str(path)

    def _general(self, domain: Domain) -> tuple[list[dict[str, JsonValue]], list[dict[str, JsonValue]]]:
        path = self._settings.replay.general_file
        if path is None:
            return [], []
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"trainer.replay.general_file: {path} cannot be read ({error}); build the foundation, or set it to null"
            ) from error
        return split_general_rows(
            text, domain=domain, probes=self._settings.replay.probes, seed=self._settings.seed
        )

    def _store_result(self, domain: Domain, out: Path) -> Learnt:
        try:
            result = json.loads((out / "result.json").read_bytes())
            metrics = dict(result["metrics"])
            wrong = [
                name for name, digest in result["files"].items() if sha256_of_file(out / name)[0] != digest
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingFailed(f"{domain}: the result cannot be read: {error}", is_final=False) from error
        if wrong:
            raise TrainingFailed(f"{domain}: {wrong} are not what result.json says", is_final=False)
        fisher = out / "fisher.safetensors"
        return Learnt(
            adapter=put_folder(self._store, out / "adapter", "adapter"),
            fisher=self._store.put_file(fisher) if fisher.exists() else None,
            metrics=metrics,
        )


def _configured_foundation(source: str, revision: str | None) -> tuple[str, str]:
    """(digest of the foundation that the settings name, its name), as bootstrap computes it."""
    if Path(source).is_dir():
        return digest_folder(Path(source), "foundation"), source
    if revision is None:
        raise ArtifactError(
            f"trainer.foundation.source: {source!r} is no folder here; mend the path, or name a hub model together "
            "with its revision"
        )
    return sha256_of_hub_model(source, revision), f"{source}@{revision}"
