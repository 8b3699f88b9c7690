"""Keys, signatures and receipts."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml

from schemas.commands import Command
from tests.unit.routing.states import state
from twinloop.errors import ConfigError, SignatureError
from twinloop.receipts import Receipt, issue_receipt, question_digest, read_receipt
from twinloop.routing.verification import state_verifier
from twinloop.signing import (
    KeyRing,
    Signer,
    create_keys,
    load_signer,
    public_entries,
    sign_document,
    verify_document,
)

NOW = 1_790_000_000_000


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_keys(tmp_path, {"inference-1": ("inference",), "operator-1": ("viewer", "operator")})
    return tmp_path


def _signer(keys: Path, key_id: str) -> tuple[Signer, KeyRing]:
    return load_signer(keys, key_id), KeyRing.load(keys / "public.yaml")


def _receipt(**changes: object) -> Receipt:
    fields: dict[str, object] = {
        "kind": "answer",
        "query_id": "q-1",
        "question_sha256": question_digest("What?"),
        "domain": "law",
        "release": "1" * 64,
        "issued_at": NOW,
    }
    return Receipt.model_validate({**fields, **changes})


def _command() -> Command:
    return Command(
        nonce="n-1",
        actor="alice",
        action="pause",
        reason="incident",
        issued_at=NOW,
        expires_at=NOW + 1,
        key_id="x",
    )


def test_a_private_key_is_readable_by_its_owner_only(keys: Path) -> None:
    assert (keys / "inference-1.pem").stat().st_mode & 0o077 == 0


def test_a_private_key_that_others_can_read_is_refused(keys: Path) -> None:
    (keys / "inference-1.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_signer(keys, "inference-1")


def test_making_keys_again_keeps_the_old_and_adds_the_missing(keys: Path) -> None:
    before = (keys / "inference-1.pem").read_bytes()
    create_keys(keys, {"inference-1": ("inference",), "inference-2": ("inference",)})
    assert (keys / "inference-1.pem").read_bytes() == before
    assert KeyRing.load(keys / "public.yaml").roles_of("inference-2") == {"inference"}


def test_a_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twinloop keys init"):
        KeyRing.load(tmp_path / "public.yaml")
    with pytest.raises(ConfigError, match="twinloop keys init"):
        load_signer(tmp_path, "nobody")


@pytest.mark.parametrize(
    "text", ["[]", "keys: 3", "keys: [{id: a}]", "keys: [{id: a, roles: [king], public: AAAA}]", "keys: ["]
)
def test_an_unreadable_key_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "public.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"public\.yaml"):
        KeyRing.load(path)


def test_a_signed_document_verifies_and_any_change_is_noticed(keys: Path) -> None:
    signer, ring = _signer(keys, "operator-1")
    signed = sign_document(_command(), signer)
    assert verify_document(signed, ring, role="operator") is signed
    for change in (
        {"reason": "other"},
        {"expires_at": NOW + 2},
        {"key_id": "inference-1"},
        {"signature": ""},
    ):
        with pytest.raises(SignatureError):
            verify_document(signed.model_copy(update=change), ring)


@pytest.mark.parametrize("payload", [b"a", b"b", b"c", b"d"])
def test_a_signature_has_one_spelling(keys: Path, payload: bytes) -> None:
    """86 characters hold 516 bits, a signature 512: the four left over may not be used for a second spelling."""
    signer, ring = _signer(keys, "operator-1")
    signature = signer.sign(payload)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for last in alphabet:
        with contextlib.suppress(SignatureError):
            ring.verify(payload, signature[:-1] + last, "operator-1")
            accepted.append(last)
    assert accepted == [signature[-1]]
    for other in (signature + "==", signature + "A", " " + signature, signature + "\n"):
        with pytest.raises(SignatureError):
            ring.verify(payload, other, "operator-1")


def test_a_key_acts_only_in_its_roles(keys: Path) -> None:
    signer, ring = _signer(keys, "operator-1")
    with pytest.raises(SignatureError, match="may not act as approver"):
        verify_document(sign_document(_command(), signer), ring, role="approver")


def test_a_rotated_key_counts_beside_its_successor_until_it_is_removed(tmp_path: Path) -> None:
    """The steps of docs/operations.md, "Rotate keys"."""
    create_keys(tmp_path, {"gatekeeper-1": ("gatekeeper",)})
    old = sign_document(state(1), load_signer(tmp_path, "gatekeeper-1"))
    public = create_keys(tmp_path, {"gatekeeper-2": ("gatekeeper",)})
    new = sign_document(state(2), load_signer(tmp_path, "gatekeeper-2"))
    assert (old.key_id, new.key_id) == ("gatekeeper-1", "gatekeeper-2")
    for signed in (old, new):
        state_verifier(KeyRing.load(public))(signed)
    entries = [entry for key_id, entry in public_entries(public).items() if key_id != "gatekeeper-1"]
    public.write_text(yaml.safe_dump({"keys": entries}), encoding="utf-8")
    ring = KeyRing.load(public)
    state_verifier(ring)(new)
    with pytest.raises(SignatureError, match="gatekeeper-1"):
        state_verifier(ring)(old)


def test_a_receipt_comes_back_as_it_was_issued(keys: Path) -> None:
    signer, ring = _signer(keys, "inference-1")
    assert read_receipt(issue_receipt(_receipt(), signer), ring) == _receipt()


def test_a_receipt_is_refused_when_anything_in_it_was_changed(keys: Path) -> None:
    signer, ring = _signer(keys, "inference-1")
    token = issue_receipt(_receipt(), signer)
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(SignatureError):
            read_receipt(changed, ring)
    for broken in ("", "a.b", token + "x", token.replace(".", "")):
        with pytest.raises(SignatureError):
            read_receipt(broken, ring)


def test_an_import_receipt_needs_an_operator_and_an_answer_receipt_a_worker(keys: Path) -> None:
    operator, ring = _signer(keys, "operator-1")
    worker, _ = _signer(keys, "inference-1")
    imported = _receipt(kind="import")
    assert read_receipt(issue_receipt(imported, operator), ring) == imported
    for receipt, signer in ((imported, worker), (_receipt(), operator)):
        with pytest.raises(SignatureError, match="may not act as"):
            read_receipt(issue_receipt(receipt, signer), ring)
