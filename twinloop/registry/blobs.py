"""The artifact store: blobs named by their SHA-256, and a few documents named by what they describe."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from twinloop.canonical import sha256_hex
from twinloop.errors import ArtifactError
from twinloop.registry.blob_cache import BlobCache
from twinloop.registry.digests import checked_digest, is_digest, sha256_of_file
from twinloop.registry.objects import Objects, open_objects
from twinloop.registry.store_settings import StoreSettings

BLOBS = "blobs/sha256"
"""Folder of the blobs in every store; a file store can be read without this class."""
_DOCUMENT_NAME = re.compile(r"(?!blobs/)[a-z]{1,32}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class BlobStore:
    """Write-once bytes; whatever is read was checked against its digest first.

    Every method may raise Transient (store silent, disk full) or ConfigError (credentials refused).
    Thread-safe.
    """

    def __init__(self, objects: Objects, *, cache: BlobCache | None = None) -> None:
        self._objects = objects
        self._cache = cache

    @property
    def url(self) -> str:
        """Address of the store, for messages."""
        return self._objects.url

    def put(self, data: bytes) -> str:
        """Store `data` and return its digest; storing the same bytes again changes nothing.

        Raises ArtifactError where other bytes stand under that digest (a damaged store: see `repair`).
        """
        digest = sha256_hex(data)
        if not self._objects.put_new(_key(digest), data):
            self.verify(digest)
        return digest

    def put_file(self, path: Path) -> str:
        """Store a file's content and return its digest; the file must not change meanwhile."""
        digest, _ = sha256_of_file(path)
        self._objects.put_new(_key(digest), path)
        self.verify(digest)  # always: the file was read twice, once to name it and once to send it
        return digest

    def get(self, digest: str) -> bytes:
        """The blob's bytes, verified; raises ArtifactError where it is missing or damaged."""
        checked_digest(digest, what=f"blob asked of {self.url}")
        cached = self._cache.get(digest) if self._cache else None
        if cached is not None:
            return cached
        data = self._objects.get(_key(digest))
        if data is None:
            raise self._missing(digest)
        found = sha256_hex(data)
        if found != digest:
            raise self._damaged(digest, found)
        if self._cache:
            self._cache.put(digest, data)
        return data

    def fetch_to(self, digest: str, path: Path) -> None:
        """Write the blob to a new file `path`, in pieces; on any error the file is removed again.

        Raises ArtifactError where the blob is missing or damaged, FileExistsError where `path` exists.
        """
        checked_digest(digest, what=f"blob asked of {self.url}")
        pieces = self._objects.stream(_key(digest))
        if pieces is None:
            raise self._missing(digest)
        seen = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                for piece in pieces:
                    seen.update(piece)
                    stream.write(piece)
            if seen.hexdigest() != digest:
                raise self._damaged(digest, seen.hexdigest())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def exists(self, digest: str) -> bool:
        """True where the store holds something under this digest; `verify` also reads it."""
        return self._objects.size(_key(checked_digest(digest, what=f"blob asked of {self.url}"))) is not None

    def verify(self, digest: str) -> int:
        """Read the blob back from the store itself, past any cache; its size in bytes.

        Raises ArtifactError where it is missing or its bytes are not what the digest promises.
        """
        checked_digest(digest, what=f"blob asked of {self.url}")
        pieces = self._objects.stream(_key(digest))
        if pieces is None:
            raise self._missing(digest)
        seen, size = hashlib.sha256(), 0
        for piece in pieces:
            seen.update(piece)
            size += len(piece)
        if seen.hexdigest() != digest:
            raise self._damaged(digest, seen.hexdigest())
        return size

    def repair(self, data: bytes) -> str:
        """Store `data`, even over a damaged blob of its digest, and return the digest."""
        digest = sha256_hex(data)
        try:
            return self.put(data)
        except ArtifactError:
            self._objects.replace(_key(digest), data)
            self.verify(digest)
            return digest

    def put_document(self, name: str, data: bytes) -> bool:
        """Store a named document once: True where it is new, False where the same bytes are already there.

        `name` is `folder/file`, as in `releases/<id>.json`. Raises ArtifactError for another name and where
        other bytes stand under it.
        """
        key = _document_key(name)
        if self._objects.put_new(key, data):
            return True
        if self._objects.get(key) == data:
            return False
        raise ArtifactError(f"{self.url}: {name} is written once and already holds other bytes")

    def put_document_if_absent(self, name: str, data: bytes) -> bytes:
        """Store a named document unless there is one; returns the bytes that stand there now."""
        key = _document_key(name)
        if self._objects.put_new(key, data):
            return data
        return self.get_document(name)

    def get_document(self, name: str) -> bytes:
        """A named document's bytes, unverified; raises ArtifactError where it is missing."""
        data = self._objects.get(_document_key(name))
        if data is None:
            raise ArtifactError(f"{self.url}: no document {name}")
        return data

    def has_document(self, name: str) -> bool:
        """True where the named document exists."""
        return self._objects.size(_document_key(name)) is not None

    def list_releases(self) -> list[str]:
        """Ids of all complete releases in the store, sorted (by id, not by time)."""
        names = (
            key.removeprefix("releases/").removesuffix(".json") for key in self._objects.keys("releases")
        )
        return [name for name in names if is_digest(name)]

    def list_blobs(self) -> list[str]:
        """Digests of all blobs in the store, sorted."""
        names = (key.removeprefix(f"{BLOBS}/") for key in self._objects.keys(BLOBS))
        return [name for name in names if is_digest(name)]

    def list_documents(self) -> list[str]:
        """Names of all named documents in the store, sorted."""
        return [key for key in self._objects.keys("") if _DOCUMENT_NAME.fullmatch(key) is not None]

    def _missing(self, digest: str) -> ArtifactError:
        return ArtifactError(
            f"{self.url}: blob {digest} is missing; restore it from a copy of the store, or publish it again"
        )

    def _damaged(self, digest: str, found: str) -> ArtifactError:
        return ArtifactError(
            f"{self.url}: blob is damaged, expected sha256 {digest}, found {found}; "
            "put sound bytes back with repair"
        )


def open_store(settings: StoreSettings) -> BlobStore:
    """The store `settings` describe, with its read-through cache where one is configured.

    Raises ConfigError where the URL or a local folder cannot be used. No request is sent to a remote store.
    """
    objects = open_objects(settings)
    if settings.cache_folder is None or not objects.is_remote:
        return BlobStore(objects)
    return BlobStore(objects, cache=BlobCache(settings.cache_folder, max_bytes=settings.cache_max_bytes))


def _key(digest: str) -> str:
    return f"{BLOBS}/{digest}"


def _document_key(name: str) -> str:
    if _DOCUMENT_NAME.fullmatch(name) is None or ".." in name:
        raise ArtifactError(
            f"document name {name[:80]!r} is refused: use folder/file of letters, digits, '.', '_', '-'"
        )
    return name
