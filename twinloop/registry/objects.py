"""The one edge to object storage: obstore calls in, this project's errors out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, MemoryStore, S3Store, from_url

from twinloop.errors import ConfigError, Transient
from twinloop.registry.store_settings import StoreSettings

_DISK_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


class Objects:
    """Keys to bytes in one store; a key is written once.

    Every method raises Transient where the store does not answer or its disk is full, and ConfigError
    where it refuses the credentials. Thread-safe.
    """

    def __init__(self, store: Any, *, url: str, local_root: Path | None = None) -> None:
        self._store = store
        self._local_root = local_root
        self.url = url

    @property
    def is_remote(self) -> bool:
        """True where reading an object crosses a network."""
        return self._local_root is None and not self.url.startswith("memory:")

    def put_new(self, key: str, data: bytes | Path) -> bool:
        """Write `data` (bytes, or a file's content) under a key nobody has written; False where one has."""
        try:
            with self._translated("write", key):
                obstore.put(self._store, key, data, mode="create")
                self._make_durable(key)
        except (AlreadyExistsError, PreconditionError):
            return False
        except (FileNotFoundError, NotFoundError) as error:
            raise Transient(f"artifact store {self.url}: cannot write {key}: {_first_line(error)}") from error
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Write `data` over whatever stands under `key` (repair of a damaged blob only)."""
        with self._translated("write", key):
            obstore.put(self._store, key, data, mode="overwrite", use_multipart=False)
            self._make_durable(key)

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        try:
            with self._translated("read", key):
                return bytes(obstore.get(self._store, key).bytes())
        except (FileNotFoundError, NotFoundError):
            return None

    def stream(self, key: str) -> Iterator[bytes] | None:
        """The object's bytes in pieces of about 8 MiB, or None where there is no such object."""
        try:
            with self._translated("read", key):
                result = obstore.get(self._store, key)
        except (FileNotFoundError, NotFoundError):
            return None
        return self._pieces(result, key)

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none."""
        try:
            with self._translated("look up", key):
                return int(obstore.head(self._store, key)["size"])
        except (FileNotFoundError, NotFoundError):
            return None

    def keys(self, prefix: str) -> list[str]:
        """Every key under the folder `prefix`, sorted."""
        with self._translated("list", prefix):
            return sorted(str(row["path"]) for page in obstore.list(self._store, prefix) for row in page)

    def _pieces(self, result: Any, key: str) -> Iterator[bytes]:
        with self._translated("read", key):
            for piece in result.stream(min_chunk_size=8 << 20):
                yield bytes(piece)

    def _make_durable(self, key: str) -> None:
        """A local rename outlives a power cut only once the file and its folder are flushed."""
        if self._local_root is None:
            return
        path = self._local_root / key
        for target in (path, path.parent):
            descriptor = os.open(target, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError, FileNotFoundError, NotFoundError):
            raise
        except (UnauthenticatedError, PermissionDeniedError) as error:
            raise ConfigError(
                f"artifact store {self.url}: not allowed to {verb} {key}: {_first_line(error)}; "
                "check the store's credentials and its access rules"
            ) from error
        except (BaseError, OSError) as error:
            raise Transient(f"artifact store {self.url}: cannot {verb} {key}: {_reason(error)}") from error


def open_objects(settings: StoreSettings) -> Objects:
    """Open the store that `settings.url` names; ConfigError where the URL or a local folder is unusable."""
    parts = urlsplit(settings.url)
    if parts.query or parts.username or parts.password:
        raise ConfigError(
            "artifact store url: no query and no credentials in it; use the settings' own fields"
        )
    if parts.scheme == "file":
        return _open_folder(settings, host=parts.netloc, folder=Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return Objects(MemoryStore(), url=settings.url)
    if parts.scheme in ("s3", "gs", "az"):
        return _open_bucket(settings, scheme=parts.scheme, bucket=parts.netloc, prefix=parts.path.strip("/"))
    raise ConfigError(
        f"artifact store url {settings.url!r}: use file:///folder, memory:///, s3://, gs:// or az://"
    )


def _open_folder(settings: StoreSettings, *, host: str, folder: Path) -> Objects:
    if host or not folder.is_absolute():
        raise ConfigError(f"artifact store url {settings.url!r}: write a folder as file:///absolute/path")
    try:
        if settings.create_folder:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        if not folder.is_dir():
            raise ConfigError(
                f"artifact store folder {folder} is missing: make it, or set create_folder: true"
            )
        return Objects(LocalStore(folder), url=settings.url, local_root=folder)
    except (OSError, BaseError) as error:
        raise ConfigError(f"artifact store folder {folder} cannot be opened: {_first_line(error)}") from error


def _open_bucket(settings: StoreSettings, *, scheme: str, bucket: str, prefix: str) -> Objects:
    if not bucket:
        raise ConfigError(f"artifact store url {settings.url!r} names no bucket")
    common: dict[str, Any] = {
        "client_options": {
            "allow_http": settings.allow_http,
            "timeout": timedelta(seconds=settings.request_timeout_s),
        },
        "retry_config": {
            "max_retries": settings.max_retries,
            "retry_timeout": timedelta(seconds=settings.retry_timeout_s),
        },
    }
    try:
        if scheme != "s3":
            return Objects(from_url(settings.url, **common), url=settings.url)
        options: dict[str, Any] = {"region": settings.region, **common}
        if settings.endpoint:
            options["endpoint"] = settings.endpoint
        if settings.access_key_id and settings.secret_access_key:
            options["access_key_id"] = settings.access_key_id.get_secret_value()
            options["secret_access_key"] = settings.secret_access_key.get_secret_value()
        return Objects(S3Store(bucket, prefix=prefix or None, **options), url=settings.url)
    except (BaseError, ValueError, TypeError) as error:
        raise ConfigError(f"artifact store {settings.url} cannot be opened: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _reason(error: BaseException) -> str:
    if any(mark in str(error) for mark in _DISK_FULL):
        return "its disk is full; free space or enlarge it, nothing was written"
    return _first_line(error)
