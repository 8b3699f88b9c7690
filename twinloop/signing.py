"""Ed25519 signatures: who may say what, by key id and role.

Private keys are PEM files that only their owner may read; public keys stand in one YAML file that every
process is given by configuration, never by Redis or Kafka (RFC 8032; key rotation adds an id, it replaces none).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel

from twinloop.base64url import from_base64url, to_base64url
from twinloop.canonical import canonical_json
from twinloop.errors import ConfigError, SignatureError

Role = Literal["gatekeeper", "inference", "trainer", "viewer", "operator", "approver", "break-glass"]
ROLES: tuple[Role, ...] = get_args(Role)

PUBLIC_FILE = "public.yaml"

SignedModel = TypeVar("SignedModel", bound=BaseModel)


class Signer:
    """Signs in the name of one key id."""

    def __init__(self, key_id: str, private_key: Ed25519PrivateKey) -> None:
        self.key_id = key_id
        self._private_key = private_key

    def sign(self, payload: bytes) -> str:
        """Return the signature as 86 characters of base64url without padding."""
        return to_base64url(self._private_key.sign(payload))


class KeyRing:
    """Public keys by id with the roles each may act in."""

    def __init__(self, keys: Mapping[str, tuple[Ed25519PublicKey, frozenset[Role]]]) -> None:
        self._keys = dict(keys)

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read `public.yaml`; raises ConfigError naming the file and the entry at fault."""
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"{path}: no public keys; make them with `twinloop keys init`") from error
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot read the public keys: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise ConfigError(f"{path}: expected a list under `keys`")
        return cls(dict(_read_entry(path, entry) for entry in document["keys"]))

    def roles_of(self, key_id: str) -> frozenset[Role]:
        """Roles of a key; empty for an unknown one."""
        return self._keys[key_id][1] if key_id in self._keys else frozenset()

    def verify(self, payload: bytes, signature: str, key_id: str, *, role: Role | None = None) -> None:
        """Raise SignatureError unless `key_id` is known, may act as `role`, and signed exactly `payload`."""
        if key_id not in self._keys:
            raise SignatureError(f"key {key_id!r} is not in the configured key file")
        public_key, roles = self._keys[key_id]
        if role is not None and role not in roles:
            raise SignatureError(f"key {key_id!r} may not act as {role}; its roles are {sorted(roles)}")
        try:
            public_key.verify(from_base64url(signature), payload)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(f"the signature by key {key_id!r} does not fit these bytes") from error


def _read_entry(path: Path, entry: object) -> tuple[str, tuple[Ed25519PublicKey, frozenset[Role]]]:
    if not isinstance(entry, dict) or set(entry) != {"id", "public", "roles"}:
        raise ConfigError(f"{path}: every key needs exactly id, public and roles; got {entry!r}")
    unknown = set(entry["roles"]) - set(ROLES)
    if unknown:
        raise ConfigError(
            f"{path}: key {entry['id']!r} has unknown roles {sorted(unknown)}; known: {list(ROLES)}"
        )
    try:
        public_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(entry["public"], validate=True))
    except ValueError as error:
        raise ConfigError(f"{path}: key {entry['id']!r} is not a base64 Ed25519 public key") from error
    return str(entry["id"]), (public_key, frozenset(cast("list[Role]", entry["roles"])))


def load_signer(folder: Path, key_id: str) -> Signer:
    """Read the private key `<folder>/<key_id>.pem`; raises ConfigError where it is missing or open to others."""
    path = folder / f"{key_id}.pem"
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: private key is readable by others; run chmod 600 on it")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no private key; make it with `twinloop keys init`") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot read the private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 private key")
    return Signer(key_id, key)


def public_entries(path: Path) -> dict[str, object]:
    """The entries of `public.yaml` by key id, for comparing two files; raises ConfigError where it cannot be read."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {str(entry["id"]): entry for entry in document["keys"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot read the public keys: {error}") from error


def create_keys(folder: Path, names: Mapping[str, tuple[Role, ...]]) -> Path:
    """Make a key pair for each id that `public.yaml` does not list yet; returns the path of `public.yaml`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    public_path = folder / PUBLIC_FILE
    entries = yaml.safe_load(public_path.read_text(encoding="utf-8"))["keys"] if public_path.exists() else []
    known = {entry["id"] for entry in entries}
    for key_id, roles in names.items():
        if key_id not in known:
            entries.append(
                {"id": key_id, "roles": list(roles), "public": _create_key(folder / f"{key_id}.pem")}
            )
    partial = public_path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump({"keys": entries}, sort_keys=False), encoding="utf-8")
    partial.replace(public_path)
    return public_path


def _create_key(path: Path) -> str:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def signed_payload(document: BaseModel) -> bytes:
    """The bytes a document's `signature` covers: its canonical JSON without that field."""
    plain = document.model_dump(mode="json")
    plain.pop("signature")
    return canonical_json(plain)


def sign_document(document: SignedModel, signer: Signer) -> SignedModel:
    """Return the document with `key_id` and `signature` filled in."""
    named = document.model_copy(update={"key_id": signer.key_id, "signature": ""})
    return named.model_copy(update={"signature": signer.sign(signed_payload(named))})


def verify_document(document: SignedModel, ring: KeyRing, *, role: Role | None = None) -> SignedModel:
    """Return the document, or raise SignatureError unless its own `key_id` signed it in that role."""
    fields = document.model_dump(include={"key_id", "signature"})
    ring.verify(signed_payload(document), fields["signature"], fields["key_id"], role=role)
    return document
