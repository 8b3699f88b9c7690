"""A decision as a POST: signed by the published scheme, and refused settings that could not sign it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from schemas.decisions import Decision
from services.gatekeeper.settings import GatekeeperSettings
from services.gatekeeper.webhook import WebhookMessage, headers_of, message_of
from services.gatekeeper.webhook_settings import WebhookSettings
from tests.histories.script import History
from twinloop.errors import ConfigError
from twinloop.settings_loader import load_settings

HOOK = {"oncall": "https://example.org/hook"}
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def settings(**fields: object) -> WebhookSettings:
    return WebhookSettings.model_validate({"endpoints": HOOK, **fields})


def test_the_signature_is_that_of_the_specifications_example() -> None:
    """Secret, id, time and body of the example that the published libraries test themselves with."""
    keys = settings(secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").keys()
    message = WebhookMessage("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')
    headers = headers_of(message, keys, at_s=1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_id_and_body_are_the_same_whenever_the_decision_is_posted() -> None:
    history = History().begin()
    first, second = message_of(history.last), message_of(history.last.model_copy())
    assert first == second
    assert first.id == history.last.decision_id
    body = json.loads(first.body)
    assert body["type"] == "twinloop.decision.v1"
    assert Decision.model_validate(body["data"]) == history.last


def test_every_secret_signs_while_one_is_being_replaced() -> None:
    old, new = b"o" * 24, b"n" * 64
    text = " ".join("whsec_" + base64.b64encode(key).decode() for key in (old, new))
    headers = headers_of(WebhookMessage("a-1", b"{}"), settings(secret=text).keys(), at_s=5)
    expected = [
        base64.b64encode(hmac.new(key, b"a-1.5.{}", hashlib.sha256).digest()).decode() for key in (old, new)
    ]
    assert headers["webhook-signature"].split(" ") == [f"v1,{each}" for each in expected]


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert settings(secret_file=file).keys() == (b"k" * 32,)
    with pytest.raises(ConfigError, match="secret_file"):
        settings(secret_file=tmp_path / "none").keys()


@pytest.mark.parametrize(
    "secret", ["hunter2", "whsec_c2hvcnQ=", "whsec_***", "", SECRET.removeprefix("whsec_")]
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigError, match=r"webhook\.secret") as refused:
        settings(secret=SecretStr(secret)).keys()
    assert not secret or secret not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "exactly one of secret and secret_file"),
        ({"secret": SECRET, "secret_file": "/a"}, "exactly one of secret and secret_file"),
        ({"secret": SECRET, "first_retry_s": 9, "longest_retry_s": 3}, "first_retry_s"),
        ({"secret": SECRET, "endpoints": {"oncall": "ftp://example.org"}}, "endpoints"),
        ({"secret": SECRET, "endpoints": {"On Call": "https://example.org"}}, "endpoints"),
        ({"secret": SECRET, "retries": 3}, "retries"),
    ],
)
def test_contradictory_settings_are_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        settings(**fields)


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(settings(secret=SECRET))


def test_the_environment_names_an_endpoint_and_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("store: {url: 'memory://'}")
    monkeypatch.setenv("TWINLOOP_GATEKEEPER__WEBHOOK__ENDPOINTS", json.dumps(HOOK))
    with pytest.raises(ConfigError, match="secret"):
        load_settings(GatekeeperSettings, Path("configs/gatekeeper.yaml"), own)
    monkeypatch.setenv("TWINLOOP_GATEKEEPER__WEBHOOK__SECRET", SECRET)
    webhook = load_settings(GatekeeperSettings, Path("configs/gatekeeper.yaml"), own).gatekeeper.webhook
    assert {name: str(url) for name, url in webhook.endpoints.items()} == HOOK
    assert webhook.keys() == (b"k" * 32,)
