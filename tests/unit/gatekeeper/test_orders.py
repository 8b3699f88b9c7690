"""Orders are carried out when they are signed, fresh and new, and audited either way."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.commands import Command
from services.gatekeeper.core.orders import ROLE_FOR
from services.gatekeeper.intake import check_command
from tests.histories.script import NEWER, START_MS, History
from twinloop.signing import KeyRing, create_keys, load_signer, sign_document


def test_a_refused_signature_changes_nothing_and_is_audited() -> None:
    history = History().begin()
    history.to_canary()
    history.order("abort", verdict="refused")
    assert history.last.kind == "canary"
    assert history.audits[-1][:2] == ("abort", "refused")


def test_a_nonce_counts_once() -> None:
    history = History().begin()
    history.order("pause", nonce="once")
    history.order("resume", nonce="once")
    assert history.audits[-1][1] == "refused"
    assert history.state.paused_by == "ada"


def test_an_expired_order_is_refused() -> None:
    history = History().begin()
    history.order("pause", life_s=0)
    assert "expired" in history.audits[-1][2]


def test_an_order_valid_for_more_than_a_day_is_refused() -> None:
    history = History().begin()
    history.order("pause", life_s=90_000)
    assert history.audits[-1][1] == "refused"


def test_nonces_are_forgotten_only_after_they_expired() -> None:
    history = History().begin()
    history.order("pause", nonce="once", life_s=60)
    history.tick(59)
    assert "once" in history.state.nonces
    history.tick(2)
    assert history.state.nonces == {}


def test_an_order_about_another_release_than_the_staged_one_is_refused() -> None:
    history = History().begin()
    history.to_canary()
    history.order("abort", release=NEWER)
    assert history.audits[-1][1] == "refused"


@pytest.mark.parametrize("action", ["abort", "approve", "jump", "promote", "resume"])
def test_an_order_without_anything_to_do_is_refused(action: str) -> None:
    history = History().begin()
    history.order(action)  # type: ignore[arg-type]
    assert history.audits[-1][1] == "refused"


def test_the_decision_an_order_led_to_names_it() -> None:
    history = History().begin()
    history.order("pause", nonce="n-77")
    assert history.last.evidence["command"] == "n-77"
    assert "n-77" in history.audits[-1][2]


def test_train_is_left_to_the_trainer() -> None:
    history = History().begin()
    history.order("train")
    assert history.audits == []
    assert history.kinds == ["genesis"]


@pytest.mark.parametrize(
    ("key_id", "action", "verdict"),
    [
        ("operator-1", "rollback", "allowed"),
        ("operator-1", "promote", "refused"),
        ("approver-1", "promote", "allowed"),
        ("approver-1", "rollback", "refused"),
        ("trainer-1", "pause", "refused"),
        ("stranger", "pause", "refused"),
    ],
)
def test_each_order_needs_its_role(tmp_path: Path, key_id: str, action: str, verdict: str) -> None:
    path = create_keys(
        tmp_path / "keys",
        {"operator-1": ("operator",), "approver-1": ("approver",), "trainer-1": ("trainer",)},
    )
    create_keys(tmp_path / "other", {"stranger": ("operator",)})
    folder = tmp_path / ("other" if key_id == "stranger" else "keys")
    command = Command.model_validate(
        {
            "nonce": "n",
            "actor": "ada",
            "action": action,
            "reason": "a test",
            "issued_at": START_MS,
            "expires_at": START_MS + 1,
            "key_id": key_id,
        }
    )
    signed = sign_document(command, load_signer(folder, key_id))
    assert check_command(signed, KeyRing.load(path), source_offset=0).verdict == verdict
    assert set(ROLE_FOR.values()) == {"operator", "approver"}


def test_an_order_changed_after_signing_is_refused(tmp_path: Path) -> None:
    path = create_keys(tmp_path, {"operator-1": ("operator",)})
    command = Command(
        nonce="n",
        actor="ada",
        action="pause",
        reason="a test",
        issued_at=START_MS,
        expires_at=START_MS + 1,
        key_id="operator-1",
    )
    signed = sign_document(command, load_signer(tmp_path, "operator-1"))
    changed = signed.model_copy(update={"action": "rollback"})
    assert check_command(changed, KeyRing.load(path), source_offset=0).verdict == "refused"
