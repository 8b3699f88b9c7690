"""A folder of verified copies of remote blobs, bounded in size."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twinloop.canonical import sha256_hex


class BlobCache:
    """Blobs by digest in one folder; a copy that fails its digest is dropped, never returned.

    The least recently read copies go first above `max_bytes`. Several processes may share the folder. A
    full or read-only disk makes the cache miss; it never makes a read fail.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, digest: str) -> bytes | None:
        """The verified copy, or None."""
        path = self._folder / digest
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if sha256_hex(data) != digest:
            path.unlink(missing_ok=True)
            return None
        try:
            os.utime(path)
        except OSError:
            return data  # evicted meanwhile by another process; the bytes in hand are verified
        return data

    def put(self, digest: str, data: bytes) -> None:
        """Keep a copy of bytes whose digest the caller has checked."""
        if len(data) > self._max_bytes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".part-")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(data)
                os.replace(name, self._folder / digest)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
            self._evict()
        except OSError:
            return  # a cache that cannot write is only slower

    def _evict(self) -> None:
        copies = []
        for path in self._folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            copies.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size
