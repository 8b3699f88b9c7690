"""Artifacts of several files: what may be stored, and what comes back."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.canonical import canonical_json, sha256_hex
from twinloop.errors import ArtifactError
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.registry.manifests import (
    check_file_names,
    digest_folder,
    materialise,
    parse_manifest,
    put_folder,
    put_manifest,
    read_file,
    read_files,
    read_manifest,
    verify_artifact,
)
from twinloop.registry.objects import open_objects
from twinloop.registry.store_settings import StoreSettings

ADAPTER: dict[str, bytes | Path] = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}"}
HOSTILE_NAMES = [
    "../adapter_config.json",
    "/etc/passwd",
    "a/b.json",
    "..",
    ".",
    "",
    ".hidden.json",
    "a\\b.json",
    "a\0.json",
    "é.json",
    "a b.json",
    "x" * 70 + ".json",
    "model.bin",
    "model.pt",
    "model.pkl",
    "modeling.py",
    "weights.npy",
    "archive.tar.gz",
    "model.safetensors.exe",
    "a.json\n",
    "MODEL.BIN",
    "noextension",
]


@pytest.fixture
def store() -> BlobStore:
    return open_store(StoreSettings(url="memory:///"))


def test_an_artifact_comes_back_whole(store: BlobStore) -> None:
    digest = put_manifest(store, "adapter", ADAPTER)
    assert read_files(store, digest, kind="adapter") == ADAPTER
    assert read_file(store, digest, "adapter_config.json") == b"{}"
    assert verify_artifact(store, digest, kind="adapter") == []


def test_the_digest_does_not_depend_on_the_order_of_files(store: BlobStore) -> None:
    assert put_manifest(store, "adapter", dict(reversed(ADAPTER.items()))) == put_manifest(
        store, "adapter", ADAPTER
    )


def test_the_digest_is_that_of_the_documented_json(store: BlobStore) -> None:
    files = [
        {"name": n, "sha256": sha256_hex(bytes(ADAPTER[n])), "size": len(bytes(ADAPTER[n]))}
        for n in sorted(ADAPTER)
    ]  # type: ignore[arg-type]
    assert put_manifest(store, "adapter", ADAPTER) == sha256_hex(
        canonical_json({"kind": "adapter", "files": files})
    )


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_file_name_is_refused(store: BlobStore, name: str) -> None:
    with pytest.raises(ArtifactError):
        put_manifest(store, "foundation", {name: b""})
    manifest = {"kind": "foundation", "files": [{"name": name, "sha256": "0" * 64, "size": 0}]}
    with pytest.raises(ArtifactError):
        parse_manifest(canonical_json(manifest), what="test")


def test_names_that_differ_in_letter_case_only_are_refused() -> None:
    with pytest.raises(ArtifactError, match="letter case"):
        check_file_names("foundation", ["a.json", "A.json"])


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["adapter_model.safetensors"],
        [*ADAPTER, "chat_template.jinja"],
        ["adapter_model.bin", "adapter_config.json"],
    ],
)
def test_an_adapter_has_exactly_its_two_files(names: list[str]) -> None:
    with pytest.raises(ArtifactError):
        check_file_names("adapter", names)


def _broken_manifests() -> list[bytes]:
    good = {"kind": "adapter", "files": [{"name": n, "sha256": "0" * 64, "size": 1} for n in sorted(ADAPTER)]}
    files = good["files"]
    return [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        canonical_json(good) + b" ",
        json.dumps(good).encode(),
        canonical_json({**good, "extra": 1}),
        canonical_json({**good, "kind": "pickle"}),
        canonical_json({**good, "kind": None}),
        canonical_json({**good, "files": {}}),
        canonical_json({**good, "files": files[::-1]}),
        canonical_json({**good, "files": [files[0], files[0]]}),
        canonical_json({**good, "files": [files[0], {**files[1], "size": -1}]}),
        canonical_json({**good, "files": [files[0], {**files[1], "size": True}]}),
        canonical_json({**good, "files": [files[0], {**files[1], "size": 1.0}]}),
        canonical_json({**good, "files": [files[0], {**files[1], "sha256": "../x"}]}),
        canonical_json({**good, "files": [files[0], {**files[1], "mode": 1}]}),
        canonical_json({**good, "files": [files[0], "x"]}),
    ]


@pytest.mark.parametrize("data", _broken_manifests())
def test_a_malformed_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="manifest test is refused"):
        parse_manifest(data, what="test")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mutation_of_a_manifest_is_accepted(data: st.DataObject) -> None:
    store = open_store(StoreSettings(url="memory:///"))
    digest = put_manifest(store, "adapter", ADAPTER)
    good = store.get(digest)
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    objects = open_objects(StoreSettings(url="memory:///"))
    objects.put_new(f"blobs/sha256/{digest}", bad)
    with pytest.raises(ArtifactError):
        read_manifest(BlobStore(objects), digest)


def test_an_artifact_of_another_kind_is_refused(store: BlobStore) -> None:
    digest = put_manifest(store, "adapter", ADAPTER)
    with pytest.raises(ArtifactError, match="is of kind adapter, not index"):
        read_manifest(store, digest, kind="index")


def test_a_folder_has_the_digest_of_its_artifact(store: BlobStore, tmp_path: Path) -> None:
    for name, content in ADAPTER.items():
        (tmp_path / name).write_bytes(bytes(content))  # type: ignore[arg-type]
    expected = put_manifest(store, "adapter", ADAPTER)
    assert digest_folder(tmp_path, "adapter") == expected == put_folder(store, tmp_path, "adapter")


def test_only_the_named_files_of_a_folder_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    before = digest_folder(tmp_path, "foundation")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin"):
        digest_folder(tmp_path, "foundation")
    assert digest_folder(tmp_path, "foundation", names=["config.json"]) == before


def test_links_and_folders_are_no_files_of_an_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "foundation"
    folder.mkdir()
    (tmp_path / "secret.json").write_bytes(b"secret")
    (folder / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ArtifactError, match="not a plain file"):
        digest_folder(folder, "foundation")
    for name in ("../secret.json", "missing.json"):
        with pytest.raises(ArtifactError, match="not a plain file"):
            digest_folder(folder, "foundation", names=[name])
    with pytest.raises(ArtifactError, match="is missing"):
        digest_folder(tmp_path / "nowhere", "foundation")


def test_an_artifact_becomes_a_folder_and_is_reused(store: BlobStore, tmp_path: Path) -> None:
    digest = put_manifest(store, "adapter", ADAPTER)
    path = materialise(store, digest, tmp_path / "cache", kind="adapter")
    assert path == tmp_path / "cache" / digest
    assert {item.name: item.read_bytes() for item in path.iterdir()} == ADAPTER
    number = path.stat().st_ino
    assert materialise(store, digest, tmp_path / "cache").stat().st_ino == number
    assert [item.name for item in (tmp_path / "cache").iterdir()] == [digest]


@pytest.mark.parametrize("damage", ["change", "truncate", "remove", "add", "link", "file"])
def test_a_damaged_copy_is_replaced(store: BlobStore, tmp_path: Path, damage: str) -> None:
    digest = put_manifest(store, "adapter", ADAPTER)
    path = materialise(store, digest, tmp_path)
    config = path / "adapter_config.json"
    (tmp_path / "outside").write_bytes(b"{}")
    if damage == "change":
        config.write_bytes(b"[]")
    if damage == "truncate":
        config.write_bytes(b"")
    if damage in ("remove", "link"):
        config.unlink()
    if damage == "link":
        config.symlink_to(tmp_path / "outside")
    if damage == "add":
        (path / "auto_map.py").write_bytes(b"import os")
    if damage == "file":
        os.rename(path, tmp_path / "moved")
        path.write_bytes(b"")
    assert materialise(store, digest, tmp_path) == path
    assert {item.name: item.read_bytes() for item in path.iterdir()} == ADAPTER
    assert not config.is_symlink()


def test_a_damaged_blob_leaves_no_folder_behind(tmp_path: Path) -> None:
    objects = open_objects(StoreSettings(url="memory:///"))
    store = BlobStore(objects)
    digest = put_manifest(store, "adapter", ADAPTER)
    broken = sha256_hex(b"weights")
    objects.replace(f"blobs/sha256/{broken}", b"we1ghts")
    with pytest.raises(ArtifactError, match=broken):
        materialise(store, digest, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    problems = verify_artifact(store, digest)
    assert len(problems) == 1
    assert "adapter_model.safetensors" in problems[0]


def test_a_size_that_the_manifest_does_not_tell_is_a_problem(store: BlobStore) -> None:
    entries = [{"name": n, "sha256": store.put(bytes(c)), "size": 99} for n, c in sorted(ADAPTER.items())]  # type: ignore[arg-type]
    digest = store.put(canonical_json({"kind": "adapter", "files": entries}))
    assert len(verify_artifact(store, digest)) == 2


def test_many_threads_may_materialise_one_artifact(store: BlobStore, tmp_path: Path) -> None:
    digest = put_manifest(store, "adapter", ADAPTER)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(materialise(store, digest, tmp_path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / digest] * 8
    assert [item.name for item in tmp_path.iterdir()] == [digest]
