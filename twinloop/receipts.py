"""Receipts: signed tokens that say which release answered which question, for feedback to quote.

A receipt binds feedback to an answer that was really given, so that nobody can rate or correct what the system
never said. The question itself is not in it, only its SHA-256.
"""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import Field, ValidationError

from schemas.event import Domain, EpochMs, Frozen, Identifier, Sha256, Slot, Unit
from twinloop.base64url import from_base64url, to_base64url
from twinloop.canonical import canonical_json, sha256_hex
from twinloop.errors import SignatureError
from twinloop.signing import KeyRing, Role, Signer

_SIGNER_ROLE: dict[str, Role] = {"answer": "inference", "import": "operator"}


class Receipt(Frozen):
    """What an answer was made of; `import` receipts are an operator's word for rows from elsewhere."""

    kind: Literal["answer", "import"]
    query_id: Identifier
    question_sha256: Sha256
    domain: Domain
    release: Sha256
    slot: Slot | None = None
    epoch: Annotated[int, Field(ge=0)] = 0
    adapter: Sha256 | None = None
    index: Sha256 | None = None
    rules: Sha256 | None = None
    issued_at: EpochMs
    unit: Unit | None = None
    """The sticky key of whoever was answered, as the statistics count it; receipts of earlier versions lack it."""


def question_digest(question: str) -> str:
    return sha256_hex(question.encode())


def issue_receipt(receipt: Receipt, signer: Signer) -> str:
    """Return `<body>.<key id>.<signature>`, body and key id in base64url without padding."""
    body = to_base64url(canonical_json(receipt))
    signed = f"{body}.{to_base64url(signer.key_id.encode())}"
    return f"{signed}.{signer.sign(signed.encode())}"


def read_receipt(token: str, ring: KeyRing) -> Receipt:
    """Verify and parse a token; raises SignatureError where it was not issued by a key of the right role."""
    parts = token.split(".")
    if len(parts) != 3:
        raise SignatureError("receipt has not the form body.key.signature")
    body, key, signature = parts
    try:
        key_id = from_base64url(key).decode()
        kind = orjson.loads(from_base64url(body)).get("kind")
    except (ValueError, AttributeError) as error:
        raise SignatureError("receipt is not readable") from error
    if kind not in _SIGNER_ROLE:
        raise SignatureError(f"receipt has unknown kind {kind!r}")
    ring.verify(f"{body}.{key}".encode(), signature, key_id, role=_SIGNER_ROLE[kind])
    try:
        return Receipt.model_validate_json(from_base64url(body))
    except ValidationError as error:
        raise SignatureError(
            f"receipt is signed but not of this version: {error.error_count()} faults"
        ) from error
