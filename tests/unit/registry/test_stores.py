"""Opening stores, local trouble, and the read-through cache."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import MemoryStore
from pydantic import ValidationError

from twinloop.canonical import sha256_hex
from twinloop.errors import ArtifactError, ConfigError, Transient
from twinloop.registry.blob_cache import BlobCache
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.registry.objects import Objects, open_objects
from twinloop.registry.store_settings import StoreSettings


def test_a_missing_folder_is_named_and_can_be_made(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    with pytest.raises(ConfigError, match=f"{tmp_path}/store is missing: make it, or set create_folder"):
        open_store(StoreSettings(url=url))
    open_store(StoreSettings(url=url, create_folder=True))
    open_store(StoreSettings(url=url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store",
        "./store",
        "file://store/x",
        "ftp://x/y",
        "s3://",
        "s3://key:secret@bucket/x",
        "s3://bucket?x=1",
    ],
)
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(StoreSettings(url=url))


def test_a_url_with_credentials_is_not_repeated_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(StoreSettings(url="s3://key:hunter2@bucket/x"))
    assert "hunter2" not in str(caught.value)


def test_secrets_do_not_show_in_the_settings() -> None:
    settings = StoreSettings.model_validate({"url": "s3://b", "secret_access_key": "hunter2"})
    assert "hunter2" not in repr(settings)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError):
        StoreSettings.model_validate({"url": "memory:///", "buckets": 3})


def test_a_store_that_does_not_answer_is_transient() -> None:
    settings = StoreSettings.model_validate(
        {
            "url": "s3://bucket/prefix",
            "endpoint": "http://127.0.0.1:9",
            "allow_http": True,
            "access_key_id": "a",
            "secret_access_key": "b",
            "max_retries": 0,
        }
    )
    store = open_store(settings)
    for use in (lambda: store.put(b"x"), lambda: store.get("0" * 64), lambda: store.exists("0" * 64)):
        with pytest.raises(Transient, match="s3://bucket/prefix: cannot"):
            use()


class FailingObjects(Objects):
    """Runs every call into the error it was made with."""

    def __init__(self, error: Exception) -> None:
        super().__init__(MemoryStore(), url="memory:///")
        self.error = error

    def fail(self) -> None:
        with self._translated("write", "blobs/sha256/x"):
            raise self.error


@pytest.mark.parametrize(
    "text", ["No space left on device (os error 28)", "Disk quota exceeded (os error 122)"]
)
def test_a_full_disk_is_transient_and_says_so(text: str) -> None:
    with pytest.raises(Transient, match="cannot write blobs/sha256/x: its disk is full"):
        FailingObjects(
            GenericError(f"Generic LocalFileSystem error: Unable to copy data to file: {text}")
        ).fail()


def test_refused_credentials_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="not allowed to write"):
        FailingObjects(PermissionDeniedError("403 Forbidden\nDebug source: ...")).fail()


def test_a_folder_that_vanished_is_an_error_of_ours(tmp_path: Path) -> None:
    store = open_store(StoreSettings(url=f"file://{tmp_path}/store", create_folder=True))
    digest = store.put(b"content")
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").write_bytes(b"in the way")
    with pytest.raises(Transient):
        store.put(b"other")
    with pytest.raises((Transient, ArtifactError)):
        store.get(digest)


def test_a_cut_write_leaves_nothing_that_counts(tmp_path: Path) -> None:
    store = open_store(StoreSettings(url=f"file://{tmp_path}", create_folder=True))
    digest = sha256_hex(b"content")
    folder = tmp_path / "blobs" / "sha256"
    folder.mkdir(parents=True)
    (folder / f"{digest}#1").write_bytes(b"cont")  # what a killed writer leaves behind
    assert not store.exists(digest)
    assert store.get(store.put(b"content")) == b"content"
    assert open_objects(StoreSettings(url=f"file://{tmp_path}")).keys("blobs") == [f"blobs/sha256/{digest}"]


def test_many_writers_of_one_blob_agree(tmp_path: Path) -> None:
    store = open_store(StoreSettings(url=f"file://{tmp_path}"))
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(store.put(b"x" * 100_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [sha256_hex(b"x" * 100_000)] * 8
    assert store.verify(digests[0]) == 100_000


def test_a_file_is_stored_by_its_content(tmp_path: Path) -> None:
    store = open_store(StoreSettings(url="memory:///"))
    (tmp_path / "big").write_bytes(b"z" * 3_000_000)
    assert store.put_file(tmp_path / "big") == sha256_hex(b"z" * 3_000_000)
    store.fetch_to(sha256_hex(b"z" * 3_000_000), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"z" * 3_000_000
    with pytest.raises(FileExistsError):
        store.fetch_to(sha256_hex(b"z" * 3_000_000), tmp_path / "copy")


class TestReadThroughCache:
    def make(self, tmp_path: Path) -> tuple[BlobStore, Objects, Path]:
        objects = open_objects(StoreSettings(url="memory:///"))
        folder = tmp_path / "cache"
        return BlobStore(objects, cache=BlobCache(folder, max_bytes=100)), objects, folder

    def test_a_second_read_does_not_need_the_store(self, tmp_path: Path) -> None:
        store, objects, _ = self.make(tmp_path)
        digest = store.put(b"content")
        store.get(digest)
        objects.replace(f"blobs/sha256/{digest}", b"damaged")
        assert store.get(digest) == b"content"

    def test_verification_reads_past_the_cache(self, tmp_path: Path) -> None:
        store, objects, _ = self.make(tmp_path)
        digest = store.put(b"content")
        store.get(digest)
        objects.replace(f"blobs/sha256/{digest}", b"damaged")
        with pytest.raises(ArtifactError, match="damaged"):
            store.verify(digest)

    def test_a_poisoned_copy_is_dropped(self, tmp_path: Path) -> None:
        store, _, folder = self.make(tmp_path)
        digest = store.put(b"content")
        store.get(digest)
        (folder / digest).write_bytes(b"poison")
        assert store.get(digest) == b"content"
        assert (folder / digest).read_bytes() == b"content"

    def test_it_stays_below_its_size(self, tmp_path: Path) -> None:
        store, _, folder = self.make(tmp_path)
        for number in range(20):
            store.get(store.put(bytes([number]) * 30))
        store.get(store.put(b"x" * 101))
        assert sum(item.stat().st_size for item in folder.iterdir()) <= 100

    def test_a_cache_that_cannot_write_does_not_fail_the_read(self, tmp_path: Path) -> None:
        store, _, folder = self.make(tmp_path)
        folder.write_bytes(b"a file where the folder should be")
        assert store.get(store.put(b"content")) == b"content"
