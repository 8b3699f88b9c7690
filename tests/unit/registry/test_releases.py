"""Releases in the store: complete when listed, refused when anything is exchanged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.event import DOMAINS
from schemas.releases import Release, SignatureBlock, TrainingEvidence
from twinloop.canonical import canonical_json, sha256_hex
from twinloop.errors import ArtifactError, SignatureError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.export import export_release
from twinloop.registry.manifests import put_manifest
from twinloop.registry.objects import Objects, open_objects
from twinloop.registry.releases import (
    ancestors,
    load_release,
    publish_release,
    release_id,
    verify_release,
)
from twinloop.registry.store_settings import StoreSettings

EMBEDDER = "e" * 64


def sign(message: bytes) -> SignatureBlock:
    return SignatureBlock(key_id="test", signature=(hashlib.sha256(b"key" + message).hexdigest() * 2)[:86])


def verify(message: bytes, block: SignatureBlock) -> None:
    if block != sign(message):
        raise SignatureError("not signed by the test key")


def evidence(seed: int = 42) -> TrainingEvidence:
    return TrainingEvidence(dataset="d" * 64, seed=seed, rows={}, documents={}, started_at=1, finished_at=2)


@pytest.fixture
def objects() -> Objects:
    return open_objects(StoreSettings(url="memory:///"))


@pytest.fixture
def store(objects: Objects) -> BlobStore:
    return BlobStore(objects)


def make_release(store: BlobStore, *, salt: str = "", **changes: Any) -> Release:
    adapters = {
        domain: put_manifest(
            store,
            "adapter",
            {"adapter_model.safetensors": f"{domain}{salt}".encode(), "adapter_config.json": b"{}"},
        )
        for domain in DOMAINS
    }
    indexes = {
        domain: put_manifest(
            store,
            "index",
            {
                "index.faiss": domain.encode(),
                "documents.jsonl": b"",
                "meta.json": canonical_json({"embedder_digest": EMBEDDER, "domain": domain}),
            },
        )
        for domain in DOMAINS
    }
    values: dict[str, Any] = {
        "foundation": put_manifest(store, "foundation", {"config.json": b"{}"}),
        "embedder": EMBEDDER,
        "adapters": adapters,
        "indexes": indexes,
        "rules": store.put(b"rules"),
        "prompt": store.put(b"prompt"),
    }
    return Release(**{**values, **changes})


def test_a_published_release_comes_back_with_its_evidence(store: BlobStore) -> None:
    release = make_release(store)
    name = publish_release(store, release, evidence(), sign)
    assert name == release_id(release)
    assert load_release(store, name, verify=verify) == (name, release, evidence())
    assert store.list_releases() == [name]
    assert verify_release(store, release) == []


def test_publishing_again_changes_nothing_and_keeps_the_first_evidence(store: BlobStore) -> None:
    release = make_release(store)
    name = publish_release(store, release, evidence(1), sign)
    assert publish_release(store, release, evidence(2), sign) == name
    assert load_release(store, name, verify=verify).evidence == evidence(1)


def test_a_crash_between_the_writes_is_mended_by_publishing_again(store: BlobStore) -> None:
    release = make_release(store)

    def crash(message: bytes) -> SignatureBlock:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_release(store, release, evidence(1), crash)
    assert store.list_releases() == []
    name = publish_release(store, release, evidence(2), sign)
    assert load_release(store, name, verify=verify).evidence == evidence(1)


@pytest.mark.parametrize("part", ["foundation", "rules", "prompt", "adapters", "indexes"])
def test_a_release_with_a_part_that_is_not_stored_is_not_published(store: BlobStore, part: str) -> None:
    release = make_release(store)
    absent: Any = "0" * 64
    if part in ("adapters", "indexes"):
        absent = {**getattr(release, part), "law": "0" * 64}
    with pytest.raises(ArtifactError, match="0000 is not in memory:///"):
        publish_release(store, release.model_copy(update={part: absent}), evidence(), sign)
    assert store.list_releases() == []


def test_a_foundation_may_stay_in_its_folder(store: BlobStore) -> None:
    release = make_release(store, foundation="f" * 64)
    name = publish_release(store, release, evidence(), sign, local_foundation="f" * 64)
    assert verify_release(store, release, local_foundation="f" * 64) == []
    assert verify_release(store, release) != []
    assert load_release(store, name, verify=verify).release == release


def test_an_index_of_another_embedder_is_not_published(store: BlobStore) -> None:
    release = make_release(store, embedder="a" * 64)
    with pytest.raises(ArtifactError, match=r"index fin .* is made with embedder"):
        publish_release(store, release, evidence(), sign)


def test_an_index_of_another_domain_is_not_published(store: BlobStore) -> None:
    release = make_release(store)
    swapped = {**release.indexes, "law": release.indexes["med"]}
    with pytest.raises(ArtifactError, match=r"index law .* is of domain 'med'"):
        publish_release(store, release.model_copy(update={"indexes": swapped}), evidence(), sign)


def test_every_damaged_blob_is_found(store: BlobStore, objects: Objects) -> None:
    release = make_release(store)
    publish_release(store, release, evidence(), sign)
    for key in objects.keys("blobs"):
        good = objects.get(key)
        assert good is not None
        objects.replace(key, good + b"x")
        assert any(key.rpartition("/")[2] in problem for problem in verify_release(store, release)), key
        objects.replace(key, good)
    assert verify_release(store, release) == []


@pytest.mark.parametrize("document", ["releases/{}.json", "releases/{}.sig.json", "evidence/{}.json"])
def test_a_changed_document_is_refused(store: BlobStore, objects: Objects, document: str) -> None:
    name = publish_release(store, make_release(store), evidence(), sign)
    key = document.format(name)
    good = objects.get(key)
    assert good is not None
    for place in range(0, len(good), 7):
        objects.replace(key, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises((ArtifactError, SignatureError)):
            load_release(store, name, verify=verify)


def test_a_signature_of_another_release_is_refused(store: BlobStore, objects: Objects) -> None:
    first = publish_release(store, make_release(store), evidence(), sign)
    second = publish_release(store, make_release(store, salt="x"), evidence(), sign)
    signature = objects.get(f"releases/{first}.sig.json")
    assert signature is not None
    objects.replace(f"releases/{second}.sig.json", signature)
    with pytest.raises(SignatureError, match="signs another release"):
        load_release(store, second, verify=verify)


def test_a_release_of_a_foreign_key_is_refused(store: BlobStore) -> None:
    def forge(message: bytes) -> SignatureBlock:
        return SignatureBlock(key_id="test", signature="A" * 86)

    name = publish_release(store, make_release(store), evidence(), forge)
    with pytest.raises(SignatureError):
        load_release(store, name, verify=verify)


def test_a_signed_document_that_is_no_release_is_refused(store: BlobStore) -> None:
    data = json.dumps({"foundation": "x"}).encode()
    name = sha256_hex(data)
    kept = canonical_json(evidence().model_dump(mode="json"))
    message = canonical_json(
        {"type": "twinloop.release-document.v1", "release": name, "evidence": sha256_hex(kept)}
    )
    block = {"release": name, "evidence": sha256_hex(kept), "signed": sign(message).model_dump()}
    store.put_document(f"releases/{name}.json", data)
    store.put_document(f"evidence/{name}.json", kept)
    store.put_document(f"releases/{name}.sig.json", canonical_json(block))
    with pytest.raises(ArtifactError, match="malformed"):
        load_release(store, name, verify=verify)


def test_ancestors_are_walked_to_the_first_release(store: BlobStore) -> None:
    names: list[str] = []
    for number in range(4):
        release = make_release(store, salt=str(number), parent=names[-1] if names else None)
        names.append(publish_release(store, release, evidence(), sign))
    assert [stored.id for stored in ancestors(store, names[-1], verify=verify)] == names[-2::-1]


def test_a_missing_ancestor_is_named(store: BlobStore) -> None:
    name = publish_release(store, make_release(store, parent="9" * 64), evidence(), sign)
    with pytest.raises(ArtifactError, match="9999"):
        list(ancestors(store, name, verify=verify))


def test_an_exported_release_is_plain_files_with_the_bytes_it_names(store: BlobStore, tmp_path: Path) -> None:
    release = make_release(store)
    name = publish_release(store, release, evidence(), sign)
    folder = export_release(store, name, tmp_path / "out", verify=verify)
    assert sha256_hex((folder / "release.json").read_bytes()) == name
    assert (folder / "rules.json").read_bytes() == b"rules"
    assert (folder / "adapters" / "law" / "adapter_model.safetensors").read_bytes() == b"law"
    assert (folder / "indexes" / "gen" / "index.faiss").read_bytes() == b"gen"


def test_an_export_overwrites_nothing_and_leaves_nothing_half_done(store: BlobStore, tmp_path: Path) -> None:
    name = publish_release(store, make_release(store), evidence(), sign)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="exists"):
        export_release(store, name, tmp_path / "out", verify=verify)
    with pytest.raises(ArtifactError):
        export_release(store, "9" * 64, tmp_path / "other", verify=verify)
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
