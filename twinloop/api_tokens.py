"""Bearer tokens of the admin API: made once, shown once, kept as SHA-256 only.

A token is 256 random bits, so its bare SHA-256 cannot be searched; the file holds no secret, and is still readable by
its owner only. There is no default token.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import ValidationError

from schemas.event import EpochMs, Frozen, Identifier, Sha256
from twinloop.base64url import to_base64url
from twinloop.errors import ConfigError

TokenRole = Literal["viewer", "operator", "approver"]
TOKEN_ROLES: tuple[TokenRole, ...] = get_args(TokenRole)
"""Each role may do what those before it may."""

TOKENS_FILE = "tokens.yaml"
PREFIX = "tl_"
_BYTES = 32
_FORM = re.compile(rf"^{PREFIX}[A-Za-z0-9_-]{{43}}$")

RandomBytes = Callable[[int], bytes]


class TokenEntry(Frozen):
    """Who holds a token, what it allows, and which key signs the orders given with it."""

    id: Identifier
    """The holder's name; it becomes the actor of every order and audit event."""
    role: TokenRole
    key_id: Identifier | None = None
    """The private key that signs this holder's orders; a viewer needs none."""
    sha256: Sha256
    made_at: EpochMs


class TokenBook:
    """Entries by the digest of their token."""

    def __init__(self, entries: tuple[TokenEntry, ...]) -> None:
        self.entries = entries
        self._by_digest: Mapping[str, TokenEntry] = {entry.sha256: entry for entry in entries}

    def holder(self, token: str) -> TokenEntry | None:
        """Whose token this is; None for one that was never made or was withdrawn."""
        return self._by_digest.get(token_digest(token)) if _FORM.match(token) else None


def includes(role: TokenRole, wanted: TokenRole) -> bool:
    """Whether a holder of `role` may do what asks for `wanted`."""
    return TOKEN_ROLES.index(role) >= TOKEN_ROLES.index(wanted)


def token_digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(random: RandomBytes) -> str:
    return PREFIX + to_base64url(random(_BYTES))


def read_tokens(path: Path) -> TokenBook:
    """The book in this file, an empty one where there is no file; raises ConfigError where it cannot be used."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: the token file is readable by others; run chmod 600 on it")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("tokens"), list):
            raise ConfigError(f"{path}: expected a list under `tokens`")
        return TokenBook(tuple(TokenEntry.model_validate(entry) for entry in document["tokens"]))
    except FileNotFoundError:
        return TokenBook(())
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path}: not a readable list of tokens: {error}") from error


def add_token(
    path: Path,
    name: str,
    role: TokenRole,
    *,
    key_id: str | None,
    now_ms: int,
    random: RandomBytes = os.urandom,
) -> str:
    """Make a token for `name`, note its digest, and return it: nobody can ever show it again.

    Raises ConfigError where that name has one already, or where an order could not be signed.
    """
    entries = read_tokens(path).entries
    if any(entry.id == name for entry in entries):
        raise ConfigError(f"{path}: {name} has a token already; `twinloop tokens revoke {name}` withdraws it")
    if role != "viewer" and key_id is None:
        raise ConfigError(f"the role {role} gives orders: name the key that signs them with --key")
    token = new_token(random)
    try:
        entry = TokenEntry(id=name, role=role, key_id=key_id, sha256=token_digest(token), made_at=now_ms)
    except ValidationError as error:
        raise ConfigError(
            f"{name!r} cannot name a token's holder: use letters, digits and . _ : @ -"
        ) from error
    _write(path, (*entries, entry))
    return token


def revoke_token(path: Path, name: str) -> None:
    """Withdraw the token of `name`; raises ConfigError where there is none."""
    entries = read_tokens(path).entries
    left = tuple(entry for entry in entries if entry.id != name)
    if len(left) == len(entries):
        raise ConfigError(f"{path}: {name} has no token; there are {[entry.id for entry in entries]}")
    _write(path, left)


def _write(path: Path, entries: tuple[TokenEntry, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(
            {"tokens": [entry.model_dump(mode="json") for entry in entries]}, file, sort_keys=False
        )
    partial.replace(path)
