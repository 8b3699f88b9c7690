from __future__ import annotations

import pytest
from pydantic import ValidationError

from twinloop.bus.settings import DEAD_LETTER_MAX_BYTES, KafkaSettings


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="bootstrap"):
        KafkaSettings(bootstrap="x")  # type: ignore[call-arg]


def test_every_field_says_what_it_is() -> None:
    undescribed = [name for name, field in KafkaSettings.model_fields.items() if not field.description]
    assert undescribed == []


def test_passwords_reach_the_client_and_no_text() -> None:
    settings = KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="router",
        sasl_password="correct horse",
        ssl_ca_location="/etc/ca.pem",
    )
    assert "correct horse" not in repr(settings) + str(settings) + settings.model_dump_json()
    config = settings.client_config()
    assert config["sasl.password"] == "correct horse"
    assert config["ssl.ca.location"] == "/etc/ca.pem"


@pytest.mark.parametrize(
    "settings",
    [
        {"security_protocol": "SASL_SSL"},
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u"},
        {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"},
    ],
)
def test_half_configured_sasl_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        KafkaSettings(**settings)  # type: ignore[arg-type]


def test_consumers_read_committed_records_and_commit_nothing_by_themselves() -> None:
    config = KafkaSettings().consumer_config()
    assert config["isolation.level"] == "read_committed"
    assert config["enable.auto.commit"] is False


def test_producers_have_room_for_dead_letters() -> None:
    config = KafkaSettings().producer_config()
    assert config["message.max.bytes"] > DEAD_LETTER_MAX_BYTES
    assert config["enable.idempotence"] is True


def test_extra_properties_win_and_reach_only_the_client_that_knows_them() -> None:
    settings = KafkaSettings(librdkafka={"debug": "eos", "linger.ms": 7, "fetch.wait.max.ms": 9})
    assert settings.producer_config()["linger.ms"] == 7
    assert "fetch.wait.max.ms" not in settings.producer_config()
    assert settings.consumer_config()["fetch.wait.max.ms"] == 9
    assert "linger.ms" not in settings.consumer_config()
    assert settings.consumer_config()["debug"] == "eos"
