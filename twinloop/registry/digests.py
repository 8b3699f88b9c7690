"""The shape of SHA-256 digests, and those of files and hub models."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from twinloop.errors import ArtifactError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


def sha256_of_file(path: Path) -> tuple[str, int]:
    """(digest, size in bytes) of a file, read in 1 MiB pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def sha256_of_hub_model(source: str, revision: str) -> str:
    """What releases name a model of the hub by: its bytes are not here to hash, its full commit id stands for them."""
    return hashlib.sha256(f"{source}@{revision}".encode()).hexdigest()


def is_digest(text: object) -> bool:
    """True where `text` is 64 lower-case hex digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def checked_digest(text: object, *, what: str) -> str:
    """`text` unchanged; raises ArtifactError naming `what` where it is not a SHA-256 in hex."""
    if isinstance(text, str) and is_digest(text):
        return text
    raise ArtifactError(f"{what}: {str(text)[:80]!r} is not a SHA-256 digest (64 lower-case hex digits)")
