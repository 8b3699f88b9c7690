"""Settings files without the passwords in them."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from twinloop.bus.settings import KafkaSettings
from twinloop.registry.store_settings import StoreSettings
from twinloop.routing.redis_settings import RedisSettings

WITHHELD = "withheld from the back-up"


def without_secrets(text: str) -> str:
    """The settings with every password replaced by a note; raises yaml.YAMLError."""
    return yaml.safe_dump(_blanked(yaml.safe_load(text)), sort_keys=False)


def _blanked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: WITHHELD if name in SECRET_NAMES and each is not None else _blanked(each)
            for name, each in value.items()
        }
    return [_blanked(each) for each in value] if isinstance(value, list) else value


def _secrets_of(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if "SecretStr" in str(field.annotation)}


SECRET_NAMES = frozenset(
    name for model in (KafkaSettings, RedisSettings, StoreSettings) for name in _secrets_of(model)
) | {"sasl.password", "ssl.key.password"}
"""Keys whose values are secret, librdkafka's own names included."""
