"""SHA-256 digests and the one canonical JSON form whose digest names a document."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from twinloop.errors import ArtifactError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


def sha256_hex(data: bytes | memoryview) -> str:
    """Lower-case hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> tuple[str, int]:
    """(digest, size in bytes) of a file, read in 1 MiB pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def is_digest(text: object) -> bool:
    """True where `text` is 64 lower-case hex digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def checked_digest(text: object, *, what: str) -> str:
    """`text` unchanged; raises ArtifactError naming `what` where it is not a SHA-256 in hex."""
    if isinstance(text, str) and is_digest(text):
        return text
    raise ArtifactError(f"{what}: {str(text)[:80]!r} is not a SHA-256 digest (64 lower-case hex digits)")


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes; ValueError for NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
