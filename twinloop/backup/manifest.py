"""What a back-up says about itself: written last and signed, so that a folder without it is no back-up."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from schemas.event import EpochMs, Frozen, Identifier, Sha256
from twinloop.canonical import canonical_json
from twinloop.errors import ArtifactError
from twinloop.registry.digests import sha256_of_file
from twinloop.signing import KeyRing, verify_document

MANIFEST = "manifest.json"
FORMAT = 1


class BackupFile(Frozen):
    """One file, by its path inside the back-up."""

    path: str
    sha256: Sha256
    size: int


class BackupPartition(Frozen):
    """One partition of the log."""

    topic: str
    """As declared, without the installation's prefix."""
    partition: int
    records: int
    end: int
    """The offset the next record would have got."""
    file: str


class Backup(Frozen):
    """Everything in a back-up."""

    format: int = FORMAT
    made_at: EpochMs
    software: str
    prefix: str
    origin_partitions: int
    incarnation: str
    epoch: int
    active_release: Sha256
    partitions: tuple[BackupPartition, ...]
    files: tuple[BackupFile, ...]
    has_private_keys: bool
    key_id: Identifier
    signature: str = ""

    def file(self, path: str) -> BackupFile:
        """The entry of a file; raises ArtifactError where there is none."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise ArtifactError(f"{MANIFEST} names no file {path}")


def files_under(folder: Path) -> tuple[BackupFile, ...]:
    """Every file in a back-up but its manifest, read to the end."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            digest, size = sha256_of_file(path)
            found.append(BackupFile(path=path.relative_to(folder).as_posix(), sha256=digest, size=size))
    return tuple(found)


def write_manifest(folder: Path, backup: Backup) -> Path:
    """Write it whole or not at all; raises OSError."""
    path = folder / MANIFEST
    partial = folder / f"{MANIFEST}.partial"
    with partial.open("xb") as file:
        file.write(canonical_json(backup) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def read_manifest(folder: Path, ring: KeyRing) -> Backup:
    """The manifest of a complete back-up whose every file was read and is as it was written.

    Raises ArtifactError naming the missing, changed or added file, SignatureError unless a key that may act as
    operator signed it.
    """
    path = folder / MANIFEST
    try:
        backup = Backup.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path} is missing: this is no back-up, or one that was interrupted; make another one"
        ) from error
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{path} cannot be read as a manifest: {error}") from error
    if backup.format != FORMAT:
        raise ArtifactError(
            f"{path} is of format {backup.format}, this software reads format {FORMAT}: restore it with version "
            f"{backup.software}"
        )
    verify_document(backup, ring, role="operator")
    _check_files(folder, backup)
    return backup


def _check_files(folder: Path, backup: Backup) -> None:
    wanted = {entry.path: entry for entry in backup.files}
    found = {entry.path: entry for entry in files_under(folder)}
    for name in sorted({*wanted, *found}):
        if name not in found:
            raise ArtifactError(f"{folder / name} is missing from the back-up; use another one")
        if name not in wanted:
            raise ArtifactError(
                f"{folder / name} is not named by {MANIFEST}; it does not belong to the back-up"
            )
        if found[name] != wanted[name]:
            raise ArtifactError(
                f"{folder / name} is damaged, its sha256 is {found[name].sha256}, not {wanted[name].sha256}; "
                "use another back-up"
            )
