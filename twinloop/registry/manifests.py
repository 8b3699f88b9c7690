"""Artifacts of several files without archives: a manifest blob lists name, digest and size of each file."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import JsonValue

from twinloop.canonical import canonical_json, sha256_hex
from twinloop.errors import ArtifactError, Transient
from twinloop.registry.blobs import BlobStore
from twinloop.registry.digests import checked_digest, sha256_of_file

ArtifactKind = Literal["adapter", "index", "foundation"]

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,64}")
# Formats that can run code when loaded (pickle, Python) are absent on purpose.
_SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".faiss", ".txt", ".model", ".jinja", ".md"})
_EXACT_FILES: dict[str, frozenset[str]] = {
    "adapter": frozenset({"adapter_model.safetensors", "adapter_config.json"}),
    "index": frozenset({"index.faiss", "documents.jsonl", "meta.json"}),
}
_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class ManifestFile:
    """One file of an artifact: its plain name, SHA-256 and size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The exact set of files of one artifact, in order of name."""

    kind: ArtifactKind
    files: tuple[ManifestFile, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON; its SHA-256 is the artifact's digest."""
        files: list[JsonValue] = [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in self.files]
        return canonical_json({"kind": self.kind, "files": files})

    @property
    def digest(self) -> str:
        """The artifact's digest."""
        return sha256_hex(self.to_bytes())

    def file(self, name: str) -> ManifestFile:
        """The entry called `name`; raises ArtifactError where there is none."""
        for entry in self.files:
            if entry.name == name:
                return entry
        raise ArtifactError(f"{self.kind} {self.digest} has no file {name!r}")


def parse_manifest(data: bytes, *, what: str) -> Manifest:
    """Read a manifest; ArtifactError naming `what` where a name, kind, size or the order is unsound."""
    try:
        if len(data) > _MAX_MANIFEST_BYTES:
            raise ValueError(f"larger than {_MAX_MANIFEST_BYTES} bytes")
        raw = json.loads(data)
        if set(raw) != {"kind", "files"}:
            raise ValueError(f"its keys are {sorted(raw)}, not kind and files")
        entries = []
        for entry in raw["files"]:
            if (
                set(entry) != {"name", "sha256", "size"}
                or type(entry["size"]) is not int
                or entry["size"] < 0
            ):
                raise ValueError(f"entry {str(entry)[:120]} is not name, sha256, size")
            entries.append(ManifestFile(str(entry["name"]), entry["sha256"], entry["size"]))
        manifest = _checked(raw["kind"], entries)
        if manifest.to_bytes() != data:
            raise ValueError("it is not canonical JSON in order of name")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ArtifactError) as error:
        raise ArtifactError(f"manifest {what} is refused: {error}") from error
    return manifest


def put_manifest(store: BlobStore, kind: ArtifactKind, files: Mapping[str, bytes | Path]) -> str:
    """Store every file (bytes, or a path to read) and then their manifest; returns the artifact's digest.

    Raises ArtifactError where the set of names is not one this kind may have.
    """
    check_file_names(kind, files)
    entries = []
    for name, content in files.items():
        if isinstance(content, Path):
            digest = store.put_file(content)
            size = content.stat().st_size
        else:
            digest, size = store.put(content), len(content)
        entries.append(ManifestFile(name, digest, size))
    return store.put(_checked(kind, entries).to_bytes())


def read_manifest(store: BlobStore, digest: str, *, kind: ArtifactKind | None = None) -> Manifest:
    """The manifest called `digest`; raises ArtifactError where it is missing, unsound or of another kind."""
    manifest = parse_manifest(store.get(digest), what=digest)
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"artifact {digest} is of kind {manifest.kind}, not {kind}")
    return manifest


def read_file(store: BlobStore, digest: str, name: str) -> bytes:
    """The verified bytes of one file of the artifact `digest`."""
    return store.get(read_manifest(store, digest).file(name).sha256)


def read_files(store: BlobStore, digest: str, *, kind: ArtifactKind | None = None) -> dict[str, bytes]:
    """The verified bytes of every file of the artifact `digest`, by name."""
    return {entry.name: store.get(entry.sha256) for entry in read_manifest(store, digest, kind=kind).files}


def verify_artifact(store: BlobStore, digest: str, *, kind: ArtifactKind | None = None) -> list[str]:
    """Read back the manifest and each file from the store itself; the problems found, if any."""
    try:
        store.verify(digest)
        manifest = read_manifest(store, digest, kind=kind)
    except ArtifactError as error:
        return [str(error)]
    problems = []
    for entry in manifest.files:
        try:
            size = store.verify(entry.sha256)
        except ArtifactError as error:
            problems.append(f"{manifest.kind} {digest}, file {entry.name}: {error}")
            continue
        if size != entry.size:
            problems.append(
                f"{manifest.kind} {digest}, file {entry.name}: {size} bytes, manifest says {entry.size}"
            )
    return problems


def digest_folder(path: Path, kind: ArtifactKind, *, names: Iterable[str] | None = None) -> str:
    """The digest this folder's files would have as an artifact; nothing is stored.

    All files count unless `names` lists those that do. ArtifactError for a file this kind may not have.
    """
    files = folder_files(path, kind, names=names)
    return _checked(kind, [ManifestFile(item.name, *sha256_of_file(item)) for item in files]).digest


def folder_files(path: Path, kind: ArtifactKind, *, names: Iterable[str] | None = None) -> list[Path]:
    """The folder's files in order of name, each a plain file with an allowed name; else ArtifactError."""
    if not path.is_dir():
        raise ArtifactError(f"{kind} folder {path} is missing")
    chosen = sorted(path / name for name in names) if names is not None else sorted(path.iterdir())
    for item in chosen:
        if item.parent != path or item.is_symlink() or not item.is_file():
            raise ArtifactError(
                f"{kind} folder {path}: {item.name!r} is not a plain file in it; name the files to take"
            )
    try:
        check_file_names(kind, [item.name for item in chosen])
    except ArtifactError as error:
        raise ArtifactError(f"{kind} folder {path}: {error}") from error
    return chosen


def put_folder(
    store: BlobStore, path: Path, kind: ArtifactKind, *, names: Iterable[str] | None = None
) -> str:
    """Store a folder's files (see `digest_folder`) as one artifact and return its digest."""
    return put_manifest(store, kind, {item.name: item for item in folder_files(path, kind, names=names)})


def materialise(store: BlobStore, digest: str, folder: Path, *, kind: ArtifactKind | None = None) -> Path:
    """The artifact as a real folder `folder/<digest>`, for libraries that read paths; verified on every call.

    A sound copy is reused, a damaged one replaced; the folder appears whole or not at all. Raises
    ArtifactError where the artifact is missing, damaged or of another kind.
    """
    manifest = read_manifest(store, digest, kind=kind)
    target = folder / digest
    if _is_sound(target, manifest):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".part-"))
    except OSError as error:
        raise Transient(f"cannot write artifact {digest} under {folder}: {error}") from error
    try:
        for entry in manifest.files:
            store.fetch_to(entry.sha256, scratch / entry.name)
        _install(scratch, target, manifest)
    except OSError as error:
        raise Transient(f"cannot write artifact {digest} under {folder}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def check_file_names(kind: str, names: Iterable[str]) -> None:
    """Raise ArtifactError unless an artifact of this kind may have these names, in any letter case once."""
    seen = list(names)
    if kind not in get_args(ArtifactKind):
        raise ArtifactError(
            f"artifact kind {str(kind)[:40]!r} is unknown: use {', '.join(get_args(ArtifactKind))}"
        )
    for name in seen:
        plain = _NAME.fullmatch(name) is not None and not name.startswith(".")
        if not plain or Path(name).suffix not in _SUFFIXES:
            allowed = " ".join(sorted(_SUFFIXES))
            raise ArtifactError(f"file name {name[:80]!r} is refused: plain names ending in {allowed} only")
    if len({name.lower() for name in seen}) != len(seen):
        raise ArtifactError(f"file names {sorted(seen)} differ only in letter case")
    exact = _EXACT_FILES.get(kind)
    if exact is not None and set(seen) != exact:
        raise ArtifactError(f"an artifact of kind {kind} has exactly {sorted(exact)}, not {sorted(seen)[:8]}")
    if not seen:
        raise ArtifactError(f"an artifact of kind {kind} needs at least one file")


def _checked(kind: str, entries: Iterable[ManifestFile]) -> Manifest:
    files = tuple(sorted(entries, key=lambda entry: entry.name))
    check_file_names(kind, [entry.name for entry in files])
    for entry in files:
        checked_digest(entry.sha256, what=f"file {entry.name}")
    known: dict[str, ArtifactKind] = {name: name for name in get_args(ArtifactKind)}
    return Manifest(kind=known[kind], files=files)


def _is_sound(target: Path, manifest: Manifest) -> bool:
    try:
        found = {item.name: item for item in os.scandir(target)}
    except OSError:
        return False
    if set(found) != {entry.name for entry in manifest.files}:
        return False
    return all(
        found[entry.name].is_file(follow_symlinks=False)
        and sha256_of_file(target / entry.name) == (entry.sha256, entry.size)
        for entry in manifest.files
    )


def _install(scratch: Path, target: Path, manifest: Manifest) -> None:
    """Rename the filled folder into place; another process that was faster with a sound copy wins."""
    for _ in range(3):
        try:
            os.rename(scratch, target)
            return
        except OSError:
            if _is_sound(target, manifest):
                return
            aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
            os.replace(target, aside / "damaged")
            shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"{target} keeps changing under this process")
