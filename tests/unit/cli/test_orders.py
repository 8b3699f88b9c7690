"""An order is signed, short-lived, and followed to what came of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from schemas.decisions import Decision
from tests.unit.cli.events import FakeLog, audit, decision, order, progress
from twinloop.cli.connection import Connection
from twinloop.cli.orders import follow_order, make_order
from twinloop.errors import CommandRefused, ConfigError, SignatureError, Transient
from twinloop.signing import KeyRing, create_keys, load_signer, verify_document

ACCEPTED = audit(result="accepted", detail="to 2ed4cfc8 [n-77]")
REFUSED = audit(result="refused", detail="cannot roll back: nothing has served yet [n-77]")
DONE = decision(evidence={"command": "n-77"})


def ticking() -> Callable[[], float]:
    """A clock that is one second further each time it is asked."""
    seconds = count()
    return lambda: float(next(seconds))


def test_the_decision_an_order_led_to_is_waited_for_after_it_was_accepted() -> None:
    outcome = follow_order(
        order(),
        decisions=FakeLog([], [], [progress(), DONE]),
        audit=FakeLog([ACCEPTED]),
        timeout_s=30,
        monotonic=ticking(),
    )
    assert outcome == DONE


def test_decisions_and_audits_of_others_are_passed_over() -> None:
    outcome = follow_order(
        order(),
        decisions=FakeLog([decision(evidence={"command": "n-1"}), decision(evidence={})], [DONE]),
        audit=FakeLog([audit(result="refused", detail="expired 9 s ago [n-1]")]),
        timeout_s=30,
        monotonic=ticking(),
    )
    assert isinstance(outcome, Decision)


def test_an_approval_ends_when_it_is_accepted() -> None:
    outcome = follow_order(
        order("approve"), decisions=FakeLog(), audit=FakeLog([ACCEPTED]), timeout_s=30, monotonic=ticking()
    )
    assert outcome == ACCEPTED


def test_a_refusal_says_why() -> None:
    with pytest.raises(CommandRefused, match="nothing has served yet"):
        follow_order(
            order(), decisions=FakeLog(), audit=FakeLog([REFUSED]), timeout_s=30, monotonic=ticking()
        )


def test_an_accepted_order_whose_decision_does_not_come_is_still_reported() -> None:
    outcome = follow_order(
        order(), decisions=FakeLog(), audit=FakeLog([ACCEPTED]), timeout_s=5, monotonic=ticking()
    )
    assert outcome == ACCEPTED


def test_silence_is_told_with_what_to_look_at() -> None:
    with pytest.raises(Transient, match="twinloop status"):
        follow_order(order(), decisions=FakeLog(), audit=FakeLog(), timeout_s=5, monotonic=ticking())


def connection(folder: Path) -> Connection:
    create_keys(folder, {"operator-1": ("operator",)})
    return cast(Connection, SimpleNamespace(signer=lambda key_id: load_signer(folder, key_id)))


def test_an_order_is_signed_and_valid_for_a_minute(tmp_path: Path) -> None:
    made = make_order(
        connection(tmp_path), "rollback", actor="ada", key_id="operator-1", reason="wrong dosages"
    )
    ring = KeyRing.load(tmp_path / "public.yaml")
    assert verify_document(made, ring, role="operator") == made
    assert made.expires_at - made.issued_at == 60_000
    with pytest.raises(SignatureError):
        verify_document(made.model_copy(update={"reason": "another"}), ring)


def test_no_two_orders_share_a_nonce(tmp_path: Path) -> None:
    here = connection(tmp_path)
    nonces = {
        make_order(here, "pause", actor="ada", key_id="operator-1", reason="r").nonce for _ in range(20)
    }
    assert len(nonces) == 20


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"approver-1\.pem"):
        make_order(connection(tmp_path), "promote", actor="ada", key_id="approver-1", reason="r")
