"""Release documents in the artifact store: published last, loaded only when digest and signature hold.

Beside `releases/<id>.json` stand `evidence/<id>.json` and `releases/<id>.sig.json`; the signature covers the
release's id and the evidence's digest, so neither can be exchanged under the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from schemas.releases import Release, SignatureBlock, TrainingEvidence
from twinloop.canonical import canonical_json, sha256_hex
from twinloop.errors import ArtifactError, SignatureError
from twinloop.registry.blobs import BlobStore
from twinloop.registry.digests import checked_digest
from twinloop.registry.manifests import ArtifactKind, read_file, verify_artifact

Sign = Callable[[bytes], SignatureBlock]
"""Signs a message; the key stays with the caller."""
Verify = Callable[[bytes, SignatureBlock], None]
"""Raises SignatureError unless the block is a known key's signature of the message."""

_SIGNED_TYPE = "twinloop.release-document.v1"


class StoredRelease(NamedTuple):
    """A release whose bytes match its id and whose signature was verified."""

    id: str
    release: Release
    evidence: TrainingEvidence


def release_bytes(release: Release) -> bytes:
    """The canonical JSON whose SHA-256 is the release's id."""
    return canonical_json(release)


def release_id(release: Release) -> str:
    """The release's id."""
    return sha256_hex(release_bytes(release))


def publish_release(
    store: BlobStore,
    release: Release,
    evidence: TrainingEvidence,
    sign: Sign,
    *,
    local_foundation: str | None = None,
) -> str:
    """Store a signed release whose parts are all in the store; returns its id. Safe to repeat after a crash.

    The release document is written last, so a listed release is complete. Where evidence for this release is
    already there, the first one stays and is the one that is signed. `local_foundation` is the digest of a
    foundation that is kept in a folder and not in the store. Raises ArtifactError naming what is missing.
    """
    problems = _missing_parts(store, release, local_foundation=local_foundation)
    if problems:
        raise ArtifactError(f"release is not published: {'; '.join(problems)}")
    name = release_id(release)
    kept = store.put_document_if_absent(_evidence_name(name), canonical_json(evidence))
    signed = sign(_message(name, sha256_hex(kept)))
    signature: dict[str, JsonValue] = {
        "release": name,
        "evidence": sha256_hex(kept),
        "signed": signed.model_dump(mode="json"),
    }
    store.put_document_if_absent(_signature_name(name), canonical_json(signature))
    store.put_document(_release_name(name), release_bytes(release))
    return name


def load_release(store: BlobStore, name: str, *, verify: Verify) -> StoredRelease:
    """The release called `name` with its evidence.

    Raises ArtifactError where a document is missing, malformed or not what the id says, SignatureError where
    the signature is not one `verify` accepts. The parts themselves are not read: see `verify_release`.
    """
    checked_digest(name, what="release id")
    data = store.get_document(_release_name(name))
    if sha256_hex(data) != name:
        raise ArtifactError(
            f"{store.url}: {_release_name(name)} is damaged, its sha256 is {sha256_hex(data)}"
        )
    evidence = store.get_document(_evidence_name(name))
    _check_signature(store, name, evidence_digest=sha256_hex(evidence), verify=verify)
    try:
        release = Release.model_validate_json(data)
        stored = StoredRelease(name, release, TrainingEvidence.model_validate_json(evidence))
    except ValidationError as error:
        raise ArtifactError(f"{store.url}: release {name} is malformed: {error}") from error
    if release_bytes(release) != data:
        raise ArtifactError(f"{store.url}: release {name} is not canonical JSON")
    return stored


def verify_release(store: BlobStore, release: Release, *, local_foundation: str | None = None) -> list[str]:
    """Read every byte of every part back from the store itself; the problems found, none where all is sound.

    Raises Transient where the store does not answer: that is no proof of anything.
    """
    problems = _damaged_documents(store, release)
    checked: set[str] = set()
    for what, digest, kind in _parts(release, local_foundation=local_foundation):
        if digest in checked:
            continue
        checked.add(digest)
        if kind is not None:
            problems += [f"{what}: {problem}" for problem in verify_artifact(store, digest, kind=kind)]
            continue
        try:
            store.verify(digest)
        except ArtifactError as error:
            problems.append(f"{what}: {error}")
    return problems or _foreign_indexes(store, release)


def ancestors(store: BlobStore, name: str, *, verify: Verify) -> Iterator[StoredRelease]:
    """The release's parent, its parent and so on, each verified; ArtifactError at a missing one."""
    parent = load_release(store, name, verify=verify).release.parent
    while parent is not None:
        stored = load_release(store, parent, verify=verify)
        yield stored
        parent = stored.release.parent


def _parts(release: Release, *, local_foundation: str | None) -> list[tuple[str, str, ArtifactKind | None]]:
    """(what, digest, kind of manifest or None for a plain blob) of each part kept in the store."""
    parts: list[tuple[str, str, ArtifactKind | None]] = [
        ("rules", release.rules, None),
        ("prompt", release.prompt, None),
    ]
    if release.foundation != local_foundation:
        parts.append(("foundation", release.foundation, "foundation"))
    parts += [(f"adapter {domain}", digest, "adapter") for domain, digest in sorted(release.adapters.items())]
    parts += [(f"index {domain}", digest, "index") for domain, digest in sorted(release.indexes.items())]
    return parts


def _missing_parts(store: BlobStore, release: Release, *, local_foundation: str | None) -> list[str]:
    parts = _parts(release, local_foundation=local_foundation)
    missing = [
        f"{what} {digest} is not in {store.url}" for what, digest, _ in parts if not store.exists(digest)
    ]
    return missing or _foreign_indexes(store, release)


def _foreign_indexes(store: BlobStore, release: Release) -> list[str]:
    """Indexes that were made with another embedder, or for another domain, than the release says."""
    problems = []
    for domain, digest in sorted(release.indexes.items()):
        try:
            meta = json.loads(read_file(store, digest, "meta.json"))
            embedder, built_for = meta["embedder_digest"], meta["domain"]
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"index {domain} {digest}: meta.json is malformed ({error!r})")
            continue
        if embedder != release.embedder:
            problems.append(
                f"index {domain} {digest} is made with embedder {embedder}, not {release.embedder}"
            )
        if built_for != domain:
            problems.append(f"index {domain} {digest} is of domain {built_for!r}")
    return problems


def _damaged_documents(store: BlobStore, release: Release) -> list[str]:
    name = release_id(release)
    problems = []
    for document in (_release_name(name), _evidence_name(name), _signature_name(name)):
        try:
            data = store.get_document(document)
        except ArtifactError as error:
            problems.append(str(error))
            continue
        if document == _release_name(name) and sha256_hex(data) != name:
            problems.append(f"{store.url}: {document} is damaged, its sha256 is {sha256_hex(data)}")
    return problems


def _check_signature(store: BlobStore, name: str, *, evidence_digest: str, verify: Verify) -> None:
    document = _signature_name(name)
    try:
        raw = json.loads(store.get_document(document))
        block = SignatureBlock.model_validate(raw["signed"])
        named = (raw["release"], raw["evidence"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureError(f"{store.url}: {document} holds no signature: {error}") from error
    if named != (name, evidence_digest):
        raise SignatureError(f"{store.url}: {document} signs another release or other evidence")
    verify(_message(name, evidence_digest), block)


def _message(name: str, evidence_digest: str) -> bytes:
    return canonical_json({"type": _SIGNED_TYPE, "release": name, "evidence": evidence_digest})


def _release_name(name: str) -> str:
    return f"releases/{name}.json"


def _signature_name(name: str) -> str:
    return f"releases/{name}.sig.json"


def _evidence_name(name: str) -> str:
    return f"evidence/{name}.json"
