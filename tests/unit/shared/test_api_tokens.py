"""Tokens are shown once, kept as digests, and withdrawn at once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from services.api.token_file import TokenFile
from twinloop.api_tokens import TOKEN_ROLES, add_token, includes, read_tokens, revoke_token
from twinloop.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.yaml"


def test_the_file_never_holds_a_token_and_is_its_owner_s_alone(path: Path) -> None:
    token = add_token(path, "ada", "operator", key_id="operator-1", now_ms=1)
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (entry := read_tokens(path).holder(token)) is not None
    assert (entry.id, entry.role, entry.key_id) == ("ada", "operator", "operator-1")


def test_no_two_tokens_are_alike_and_nobody_else_s_is_taken(path: Path) -> None:
    tokens = {add_token(path, f"v-{n}", "viewer", key_id=None, now_ms=1) for n in range(20)}
    assert len(tokens) == 20
    some = tokens.pop()
    changed = some[:-1] + ("A" if some[-1] != "A" else "B")
    assert read_tokens(path).holder(changed) is None


def test_there_is_no_token_before_one_is_made(path: Path) -> None:
    assert TokenFile(path).holder("") is None
    assert TokenFile(path).holder("tl_" + "A" * 43) is None


def test_a_withdrawn_token_is_refused_from_the_next_look_on(path: Path) -> None:
    token = add_token(path, "ada", "viewer", key_id=None, now_ms=1)
    file = TokenFile(path)
    assert file.holder(token) is not None
    revoke_token(path, "ada")
    assert file.holder(token) is None


def test_a_file_that_became_unusable_lets_nobody_in(path: Path) -> None:
    token = add_token(path, "ada", "viewer", key_id=None, now_ms=1)
    file = TokenFile(path)
    assert file.holder(token) is not None
    path.write_text("tokens: none\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="expected a list"):
            file.holder(token)


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    add_token(path, "ada", "viewer", key_id=None, now_ms=1)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(path)


def test_one_name_has_one_token_and_orders_need_a_key(path: Path) -> None:
    add_token(path, "ada", "viewer", key_id=None, now_ms=1)
    with pytest.raises(ConfigError, match="revoke ada"):
        add_token(path, "ada", "viewer", key_id=None, now_ms=1)
    with pytest.raises(ConfigError, match="--key"):
        add_token(path, "bob", "operator", key_id=None, now_ms=1)
    with pytest.raises(ConfigError, match="cannot name"):
        add_token(path, "../bob", "viewer", key_id=None, now_ms=1)
    with pytest.raises(ConfigError, match="has no token"):
        revoke_token(path, "bob")


def test_each_role_may_what_those_before_it_may() -> None:
    allowed = {role: [wanted for wanted in TOKEN_ROLES if includes(role, wanted)] for role in TOKEN_ROLES}
    assert allowed == {
        "viewer": ["viewer"],
        "operator": ["viewer", "operator"],
        "approver": ["viewer", "operator", "approver"],
    }
