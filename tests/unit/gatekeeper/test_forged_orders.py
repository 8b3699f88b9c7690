"""Of a thousand orders that are unsigned, replayed, expired or given with too low a role, none is carried out."""

from __future__ import annotations

import random
from pathlib import Path

from schemas.commands import Action, Command
from services.gatekeeper.core.orders import ROLE_FOR
from services.gatekeeper.intake import check_command
from tests.histories.script import START_MS, History
from twinloop.signing import KeyRing, Signer, create_keys, load_signer, sign_document

ATTEMPTS = 1000
ACTIONS: tuple[Action, ...] = tuple(action for action in ROLE_FOR if action != "train")


def order(action: Action, *, key_id: str, nonce: str, expires_in_ms: int) -> Command:
    return Command(
        nonce=nonce,
        actor="mallory",
        action=action,
        reason="an attempt",
        issued_at=START_MS,
        expires_at=START_MS + expires_in_ms,
        key_id=key_id,
    )


def attempt(number: int, chance: random.Random, signers: dict[str, Signer], used: Command) -> Command:
    """One order that must not be carried out; the kinds take turns."""
    action = chance.choice(ACTIONS)
    right = "approver-1" if ROLE_FOR[action] == "approver" else "operator-1"
    wrong = "operator-1" if right == "approver-1" else chance.choice(["approver-1", "viewer-1", "trainer-1"])
    good = order(action, key_id=right, nonce=f"n-{number}", expires_in_ms=60_000)
    kind = number % 7
    if kind == 0:
        return good
    if kind == 1:
        return good.model_copy(update={"signature": "A" * 86})
    if kind == 2:
        return sign_document(good, signers[right]).model_copy(update={"nonce": f"other-{number}"})
    if kind == 3:
        return used
    if kind == 4:
        return sign_document(good.model_copy(update={"expires_at": START_MS}), signers[right])
    if kind == 5:
        return sign_document(good.model_copy(update={"key_id": wrong}), signers[wrong])
    # A stranger's key under a known name.
    return sign_document(good, signers["stranger"]).model_copy(update={"key_id": right})


def test_none_of_a_thousand_forged_replayed_expired_or_underprivileged_orders_is_carried_out(
    tmp_path: Path,
) -> None:
    roles = {
        "operator-1": ("operator", "viewer"),
        "approver-1": ("approver",),
        "viewer-1": ("viewer",),
        "trainer-1": ("trainer",),
    }
    ring = KeyRing.load(create_keys(tmp_path / "keys", roles))  # type: ignore[arg-type]
    create_keys(tmp_path / "other", {"stranger": ("operator", "approver")})
    signers = {key_id: load_signer(tmp_path / "keys", key_id) for key_id in roles}
    signers["stranger"] = load_signer(tmp_path / "other", "stranger")
    history = History().begin()
    history.to_canary()
    # One order is good: without it the thousand would prove nothing, and it is the one that is replayed.
    used = sign_document(
        order("pause", key_id="operator-1", nonce="used", expires_in_ms=80_000_000), signers["operator-1"]
    )
    history.write(check_command(used, ring, source_offset=0))
    assert history.audits[-1][:2] == ("pause", "accepted")
    decided, audited = len(history.decisions), len(history.audits)

    chance = random.Random(42)
    for number in range(ATTEMPTS):
        history.write(check_command(attempt(number, chance, signers, used), ring, source_offset=number + 1))

    results = [result for _, result, _ in history.audits[audited:]]
    assert results == ["refused"] * ATTEMPTS
    assert len(history.decisions) == decided
