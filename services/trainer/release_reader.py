"""What the trainer asks of stored releases: where they come from, and which documents they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from schemas.event import Domain
from schemas.releases import SignatureBlock
from twinloop.errors import ArtifactError, SignatureError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.manifests import read_file
from twinloop.registry.releases import StoredRelease, load_release
from twinloop.retrieval.document import Document
from twinloop.signing import KeyRing
from twinloop.telemetry.logging import get_logger

_MAX_LINEAGE = 64
_MAX_CACHED_INDEXES = 8


class ReleaseReader:
    """Verified releases by id and the documents of their indexes; one thread."""

    def __init__(self, store: BlobStore, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self._releases: dict[str, StoredRelease] = {}
        self._documents: OrderedDict[str, dict[str, Document]] = OrderedDict()
        self._log = get_logger("trainer")

    def release(self, name: str) -> StoredRelease:
        """The stored release; raises ArtifactError or SignatureError where it is not sound, Transient."""
        if name not in self._releases:
            if len(self._releases) > 4 * _MAX_LINEAGE:
                self._releases.clear()
            self._releases[name] = load_release(self._store, name, verify=self._verify)
        return self._releases[name]

    def lineage(self, release: str) -> tuple[str, ...]:
        """The release, its parent and so on, at most 64; it ends early at one that cannot be verified."""
        return tuple(islice(self._ancestors(release), _MAX_LINEAGE))

    def whole_lineage(self, release: str) -> tuple[str, ...]:
        """The release, its parent and so on to the first one; it ends early at one that cannot be verified."""
        return tuple(self._ancestors(release))

    def _ancestors(self, release: str) -> Iterator[str]:
        known: set[str] = set()
        name: str | None = release
        while name is not None and name not in known:
            known.add(name)
            yield name
            try:
                name = self.release(name).release.parent
            except (ArtifactError, SignatureError) as error:
                self._log.warning("lineage_ends", release=name, reason=str(error))
                return

    def documents(self, release: str, domain: Domain) -> dict[str, Document]:
        """The documents of the release's index of a domain, by id."""
        index = self.release(release).release.indexes[domain]
        if index not in self._documents:
            lines = read_file(self._store, index, "documents.jsonl").splitlines()
            documents = (Document.from_line(line) for line in lines if line)
            self._documents[index] = {document.id: document for document in documents}
            while len(self._documents) > _MAX_CACHED_INDEXES:
                self._documents.popitem(last=False)
        return self._documents[index]

    def _verify(self, payload: bytes, block: SignatureBlock) -> None:
        self._ring.verify(payload, block.signature, block.key_id, role="trainer")
