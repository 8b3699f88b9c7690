"""A release as plain files, for people and for programs that know nothing of this store."""

from __future__ import annotations

import shutil
from pathlib import Path

from schemas.releases import Release
from twinloop.canonical import canonical_json
from twinloop.errors import ArtifactError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.manifests import read_files
from twinloop.registry.releases import Verify, load_release


def export_release(store: BlobStore, name: str, folder: Path, *, verify: Verify) -> Path:
    """Write `release.json`, `evidence.json`, `rules.json`, `prompt.json`, `adapters/DOMAIN/` and `indexes/DOMAIN/`.

    An adapter's folder is what peft reads, an index's `index.faiss` what faiss reads. Every byte is checked against
    the digest the release names. Raises ArtifactError where `folder` exists or a part is missing or damaged, and
    SignatureError where the signature is not one `verify` accepts.
    """
    if folder.exists():
        raise ArtifactError(f"{folder} exists: name a folder that does not, nothing is overwritten")
    stored = load_release(store, name, verify=verify)
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _write(store, stored.release, scratch)
        (scratch / "evidence.json").write_text(
            stored.evidence.model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _write(store: BlobStore, release: Release, folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o750)
    (folder / "release.json").write_bytes(canonical_json(release.model_dump(mode="json")))
    (folder / "rules.json").write_bytes(store.get(release.rules))
    (folder / "prompt.json").write_bytes(store.get(release.prompt))
    for domain, digest in release.adapters.items():
        _write_files(folder / "adapters" / domain, read_files(store, digest, kind="adapter"))
    for domain, digest in release.indexes.items():
        _write_files(folder / "indexes" / domain, read_files(store, digest, kind="index"))


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, mode=0o750)
    for name, data in files.items():
        (folder / name).write_bytes(data)
