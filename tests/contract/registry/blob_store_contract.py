"""What every artifact store promises; each edge runs this class."""

from __future__ import annotations

import pytest

from twinloop.canonical import sha256_hex
from twinloop.errors import ArtifactError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.objects import Objects

NOWHERE = "0" * 64
HOSTILE_NAMES = [
    "../outside",
    "releases/../../outside",
    "/etc/passwd",
    "releases//x.json",
    "releases/",
    "releases",
    "releases/x\0.json",
    "releases/é.json",
    "releases/.hidden",
    "releases/a/b.json",
    "releases/a..b",
    "Releases/x.json",
    "blobs/sha256",
    "releases\\x.json",
    "releases/" + "x" * 200,
    "",
]


class BlobStoreContract:
    """Subclasses provide `objects`, an empty store."""

    @pytest.fixture
    def objects(self) -> Objects:
        raise NotImplementedError

    @pytest.fixture
    def store(self, objects: Objects) -> BlobStore:
        return BlobStore(objects)

    def test_a_blob_comes_back_under_its_digest(self, store: BlobStore) -> None:
        digest = store.put(b"content")
        assert digest == sha256_hex(b"content")
        assert store.get(digest) == b"content"
        assert store.exists(digest)
        assert store.verify(digest) == 7

    def test_an_empty_blob_is_a_blob(self, store: BlobStore) -> None:
        assert store.get(store.put(b"")) == b""

    def test_storing_the_same_bytes_again_changes_nothing(self, store: BlobStore) -> None:
        assert store.put(b"content") == store.put(b"content")

    def test_a_missing_blob_is_named(self, store: BlobStore) -> None:
        assert not store.exists(NOWHERE)
        for read in (store.get, store.verify):
            with pytest.raises(ArtifactError, match=f"{NOWHERE} is missing"):
                read(NOWHERE)

    def test_a_damaged_blob_is_never_returned(self, store: BlobStore, objects: Objects) -> None:
        digest = store.put(b"content")
        objects.replace(f"blobs/sha256/{digest}", b"c0ntent")
        for read in (store.get, store.verify):
            with pytest.raises(
                ArtifactError, match=f"expected sha256 {digest}, found {sha256_hex(b'c0ntent')}"
            ):
                read(digest)

    def test_storing_over_a_damaged_blob_says_so_and_repair_mends_it(
        self, store: BlobStore, objects: Objects
    ) -> None:
        digest = store.put(b"content")
        objects.replace(f"blobs/sha256/{digest}", b"")
        with pytest.raises(ArtifactError, match="damaged"):
            store.put(b"content")
        store.repair(b"content")
        assert store.get(digest) == b"content"

    def test_a_document_is_written_once(self, store: BlobStore) -> None:
        assert store.put_document("releases/a.json", b"1")
        assert not store.put_document("releases/a.json", b"1")
        with pytest.raises(ArtifactError, match="written once"):
            store.put_document("releases/a.json", b"2")
        assert store.get_document("releases/a.json") == b"1"

    def test_the_first_writer_of_a_document_wins(self, store: BlobStore) -> None:
        assert store.put_document_if_absent("evidence/a.json", b"1") == b"1"
        assert store.put_document_if_absent("evidence/a.json", b"2") == b"1"

    def test_a_missing_document_is_named(self, store: BlobStore) -> None:
        assert not store.has_document("releases/a.json")
        with pytest.raises(ArtifactError, match=r"no document releases/a\.json"):
            store.get_document("releases/a.json")

    def test_only_release_documents_are_listed(self, store: BlobStore) -> None:
        first, second = sha256_hex(b"1"), sha256_hex(b"2")
        for name in (f"releases/{first}.json", f"releases/{first}.sig.json", f"releases/{second}.json"):
            store.put_document(name, b"{}")
        store.put_document("releases/note.json", b"{}")
        store.put_document(f"evidence/{first}.json", b"{}")
        assert store.list_releases() == sorted([first, second])

    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_a_hostile_document_name_is_refused(self, store: BlobStore, objects: Objects, name: str) -> None:
        for use in (lambda: store.put_document(name, b"x"), lambda: store.get_document(name)):
            with pytest.raises(ArtifactError, match="is refused"):
                use()
        assert objects.keys("") == []

    @pytest.mark.parametrize("digest", ["", "../x", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
    def test_what_is_no_digest_is_refused(self, store: BlobStore, digest: str) -> None:
        for use in (store.get, store.exists, store.verify):
            with pytest.raises(ArtifactError, match="not a SHA-256"):
                use(digest)
