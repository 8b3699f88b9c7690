"""Settings files without the passwords in them."""

from __future__ import annotations

import re
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


def is_secret(name: str) -> bool:
    """Whether the value of a key of this name is withheld; a name that only looks secret is, too."""
    return name in SECRET_NAMES or _LOOKS_SECRET.search(name) is not None


def _blanked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: WITHHELD if is_secret(str(name)) and each is not None else _blanked(each)
            for name, each in value.items()
        }
    return [_blanked(each) for each in value] if isinstance(value, list) else value


def _secrets_of(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if "SecretStr" in str(field.annotation)}


SECRET_NAMES = frozenset(
    name for model in (KafkaSettings, RedisSettings, StoreSettings) for name in _secrets_of(model)
) | {"sasl.password", "ssl.key.password"}
"""Keys whose values are secret, librdkafka's own names included."""
_LOOKS_SECRET = re.compile(r"(password|passphrase|secret|token)$")
