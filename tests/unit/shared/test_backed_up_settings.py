"""No password leaves an installation with a back-up of its settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from services.api.settings import ApiSettings
from services.gatekeeper.settings import GatekeeperSettings
from services.inference.settings import InferenceSettings
from services.router.settings import RouterSettings
from services.trainer.settings import TrainerSettings
from twinloop.backup.config_copy import WITHHELD, without_secrets

ALL = (ApiSettings, GatekeeperSettings, InferenceSettings, RouterSettings, TrainerSettings)


def secrets(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if "SecretStr" in str(field.annotation):
            yield f"{path}{name}"
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from secrets(part, f"{path}{name}.")


@pytest.mark.parametrize("settings", ALL)
def test_every_secret_of_every_service_is_withheld(settings: type[BaseModel]) -> None:
    found = list(secrets(settings))
    assert found, "the walk through the settings finds nothing"
    for name in found:
        *sections, key = name.split(".")
        text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
        kept = without_secrets(f"{text}{'  ' * len(sections)}{key}: of-nobody-else\n")
        assert "of-nobody-else" not in kept
        assert WITHHELD in kept


def test_the_secret_of_the_webhook_is_among_them_and_plain_settings_stay() -> None:
    kept = without_secrets(
        "gatekeeper:\n  webhook: {url: 'http://127.0.0.1/', secret: hush}\n  max_tokens: 3\n"
    )
    assert "hush" not in kept
    assert "127.0.0.1" in kept
    assert "max_tokens: 3" in kept
