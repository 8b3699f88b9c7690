"""Canonical JSON and digests: one spelling of a value, so that its SHA-256 names it."""

from __future__ import annotations

import hashlib

import orjson
from pydantic import BaseModel, JsonValue


def canonical_json(value: JsonValue | BaseModel) -> bytes:
    """Serialise to UTF-8 with sorted keys and no blanks, after RFC 8785; raises TypeError on other types."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(value: JsonValue | BaseModel) -> str:
    """SHA-256 of the canonical JSON, lower-case hexadecimal."""
    return sha256_hex(canonical_json(value))
