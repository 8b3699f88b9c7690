"""Releases as the artifact store holds them, read once each: they never change."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from twinloop.errors import ArtifactError, SignatureError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.releases import StoredRelease, load_release
from twinloop.signing import KeyRing
from twinloop.telemetry.logging import get_logger

_log = get_logger(__name__)


class ReleaseShelf:
    """Remembers what it has read; any thread."""

    def __init__(self, store: BlobStore, ring: KeyRing) -> None:
        self._store, self._ring = store, ring
        self._read: dict[str, StoredRelease] = {}
        self._lock = threading.Lock()

    def read(self, names: Sequence[str]) -> Mapping[str, StoredRelease]:
        """Those of `names` that the store has and that are what they say; raises Transient where it is silent."""
        for name in names:
            if name not in self._read:
                self._read_one(name)
        with self._lock:
            return {name: self._read[name] for name in names if name in self._read}

    def _read_one(self, name: str) -> None:
        try:
            found = load_release(
                self._store,
                name,
                verify=lambda message, block: self._ring.verify(message, block.signature, block.key_id),
            )
        except (ArtifactError, SignatureError) as error:
            _log.warning("release_unreadable", release=name, reason=str(error))
            return
        with self._lock:
            self._read[name] = found
