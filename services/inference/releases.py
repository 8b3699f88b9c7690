"""The releases a worker can answer with: load, verify, warm, ready; never replaced in place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.event import Domain, Sha256
from schemas.releases import Release, SignatureBlock
from twinloop.errors import ArtifactError, TwinLoopError
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.prompt import PromptFormat
from twinloop.registry.blobs import BlobStore
from twinloop.registry.manifests import read_files
from twinloop.registry.releases import load_release
from twinloop.retrieval.coverage import TermWeights
from twinloop.retrieval.embedder import Embedder
from twinloop.retrieval.index import DomainIndex
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.rules import read_rules
from twinloop.telemetry.logging import get_logger

VerifyRelease = Callable[[bytes, SignatureBlock], None]
Warm = Callable[["ReadyRelease"], None]
_log = get_logger(__name__)


@dataclass(frozen=True)
class ReadyRelease:
    """A release with everything it names in memory; adapters are resident in the bank under their digests."""

    release_id: Sha256
    release: Release
    indexes: Mapping[Domain, DomainIndex]
    terms: Mapping[Domain, TermWeights]
    prompt: PromptFormat
    domains: DomainChooser


class ReleaseShelf:
    """Releases in memory, by id; `prepare` may run in another thread than the readers."""

    def __init__(
        self,
        store: BlobStore,
        bank: AdapterBank,
        embedder: Embedder,
        *,
        foundation_digest: Sha256,
        verify: VerifyRelease,
        warm: Warm,
    ) -> None:
        self._store, self._bank, self._embedder = store, bank, embedder
        self._foundation_digest, self._verify, self._warm = foundation_digest, verify, warm
        self._indexes: dict[Sha256, tuple[DomainIndex, TermWeights]] = {}
        # Replaced whole, never changed in place: a running batch keeps what it took.
        self._ready: Mapping[Sha256, ReadyRelease] = {}
        self._replacing = threading.Lock()
        # Held while a release is loaded and warmed, which may take seconds.
        self._preparing = threading.Lock()

    @property
    def ready(self) -> Mapping[Sha256, ReadyRelease]:
        """Releases that can answer at once."""
        return self._ready

    def prepare(self, release_id: Sha256) -> ReadyRelease:
        """Load, verify and warm one release; idempotent. Raises ArtifactError, SignatureError, Transient."""
        with self._preparing:
            if release_id in self._ready:
                return self._ready[release_id]
            prepared = self._load(release_id)
            self._warm(prepared)
            with self._replacing:
                self._ready = {**self._ready, release_id: prepared}
            self._evict_unused()
            return prepared

    def keep_only(self, wanted: set[Sha256]) -> None:
        """Let go of every other release, and of what only they used: at once, or when a preparation has ended.

        Never waits for a preparation: a worker that learns of a rollback meanwhile goes on answering.
        """
        with self._replacing:
            kept = {release_id: ready for release_id, ready in self._ready.items() if release_id in wanted}
            if len(kept) == len(self._ready):
                return
            self._ready = kept
        if self._preparing.acquire(blocking=False):
            try:
                self._evict_unused()
            finally:
                self._preparing.release()

    def _evict_unused(self) -> None:
        ready = self._ready.values()
        adapters = {digest for each in ready for digest in each.release.adapters.values()}
        indexes = {digest for each in ready for digest in each.release.indexes.values()}
        for digest in set(self._bank.resident()) - adapters:
            self._bank.evict(digest)
        self._indexes = {digest: index for digest, index in self._indexes.items() if digest in indexes}

    def _load(self, release_id: Sha256) -> ReadyRelease:
        release = load_release(self._store, release_id, verify=self._verify).release
        self._check_runtime(release_id, release)
        for digest in sorted(set(release.adapters.values())):
            if digest not in self._bank.resident():
                self._bank.load(digest, read_files(self._store, digest, kind="adapter"))
        loaded = {domain: self._index(digest, domain) for domain, digest in release.indexes.items()}
        indexes = {domain: index for domain, (index, _) in loaded.items()}
        terms = {domain: terms for domain, (_, terms) in loaded.items()}
        prompt = PromptFormat.from_json(self._store.get(release.prompt))
        domains = DomainChooser(read_rules(self._store.get(release.rules), name=release.rules))
        return ReadyRelease(release_id, release, indexes, terms, prompt, domains)

    def _index(self, digest: Sha256, domain: Domain) -> tuple[DomainIndex, TermWeights]:
        if digest not in self._indexes:
            files = read_files(self._store, digest, kind="index")
            index = DomainIndex.load(files, self._embedder, domain=domain)
            terms = TermWeights.of(document.searchable_text() for document in index.documents)
            self._indexes[digest] = index, terms
        return self._indexes[digest]

    def _check_runtime(self, release_id: Sha256, release: Release) -> None:
        if release.foundation != self._foundation_digest:
            raise ArtifactError(
                f"release {release_id} was made for foundation {release.foundation}, this worker runs "
                f"{self._foundation_digest}; point inference.foundation.source at the right folder"
            )
        if release.embedder != self._embedder.digest:
            raise ArtifactError(
                f"release {release_id} was indexed by embedder {release.embedder}, this worker runs "
                f"{self._embedder.name} {self._embedder.digest}; set inference.embedder accordingly"
            )


class Preparer:
    """Prepares releases in a thread of its own and remembers which failed and why."""

    def __init__(self, shelf: ReleaseShelf, on_change: Callable[[], None]) -> None:
        self._shelf, self._on_change = shelf, on_change
        self._wanted: tuple[Sha256, ...] = ()
        self._problems: dict[Sha256, str] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="preparer", daemon=True)
        self._thread.start()

    @property
    def problems(self) -> dict[Sha256, str]:
        """Wanted releases that could not be prepared, and why; each is tried again every second."""
        with self._changed:
            return dict(self._problems)

    def want(self, releases: tuple[Sha256, ...]) -> None:
        """Prepare these, in this order; forget failures of others."""
        with self._changed:
            if releases != self._wanted:
                self._wanted = releases
                self._problems = {key: why for key, why in self._problems.items() if key in releases}
                self._changed.notify_all()

    def wait_for(self, release_id: Sha256, timeout_s: float) -> bool:
        """Block until a wanted release is ready; False where it is not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: release_id in self._shelf.ready, timeout_s)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while True:
            with self._changed:
                missing = [each for each in self._wanted if each not in self._shelf.ready]
                if not missing and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                missing = [each for each in self._wanted if each not in self._shelf.ready]
            failed = [each for each in missing if not self._prepared(each)]
            if failed:
                with self._changed:
                    self._changed.wait(timeout=1.0)

    def _prepared(self, release_id: Sha256) -> bool:
        problem: str | None = None
        try:
            self._shelf.prepare(release_id)
        except TwinLoopError as error:
            problem = str(error)
        except Exception as error:
            # The model fails in the warm-up: said as the release's problem, or nothing else would be prepared again.
            _log.error(
                "warm-up failed", release=release_id, error=type(error).__name__, detail=str(error)[:300]
            )
            problem = f"its warm-up failed: {type(error).__name__}: {error}"
        with self._changed:
            if problem is None:
                self._problems.pop(release_id, None)
            else:
                self._problems[release_id] = problem
            self._changed.notify_all()
        self._on_change()
        return problem is None
