"""Settings: YAML files merged left to right, environment variables over them, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from twinloop.bus.settings import KafkaSettings
from twinloop.errors import ConfigError
from twinloop.registry.store_settings import StoreSettings
from twinloop.routing.redis_settings import RedisSettings
from twinloop.topics import TopicSettings

ENVIRONMENT_PREFIX = "TWINLOOP_"
SHARED_SECTIONS = ("kafka", "redis", "store", "keys", "telemetry", "topics")


class KeySettings(BaseModel):
    """Where signing keys are."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    folder: Path = Path(".twinloop/keys")
    """Folder of this process's private keys, one PEM file a key id, readable by its owner only."""
    public_file: Path | None = None
    """The public keys everybody trusts; `public.yaml` in `folder` where absent."""
    key_id: str = ""
    """The key this process signs with; each service has its own default."""

    @property
    def public_path(self) -> Path:
        return self.public_file or self.folder / "public.yaml"


class TelemetrySettings(BaseModel):
    """Where a process shows its health and metrics."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address the health and metrics server binds."""
    port: int = Field(default=0, ge=0, le=65535)
    """Its port; 0 takes a free one and logs it."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least severe log line that is written."""


class ServiceSettings(BaseSettings):
    """The sections every service shares; each service adds one of its own."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9._-]{1,48}$")
    """Names this process among its peers; stable across restarts, because transactions are fenced by it."""
    state_folder: Path = Path(".twinloop/state")
    """Local files that survive a restart: the last routing state, checkpoints, caches."""
    kafka: KafkaSettings = KafkaSettings()
    """How to reach Kafka."""
    redis: RedisSettings = RedisSettings()
    """How to reach Redis."""
    store: StoreSettings
    """Where artifacts are kept."""
    keys: KeySettings = KeySettings()
    """Where signing keys are."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Where this process shows its health and metrics."""
    topics: TopicSettings = TopicSettings()
    """How topics are named and partitioned."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # YAML arrives as init arguments: the environment must win over it.
        return (env_settings, init_settings)


S = TypeVar("S", bound=ServiceSettings)


def load_settings(settings_class: type[S], *paths: Path) -> S:
    """Merge the files, apply the environment, validate; raises ConfigError naming file or variable and key."""
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, read_yaml(path))
    try:
        return settings_class(**merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, paths)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping; an empty file is an empty mapping."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(document).__name__}")
    return document


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins key by key; nested mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def _explain(error: ValidationError, paths: tuple[Path, ...]) -> str:
    files = ", ".join(map(str, paths)) or "no file"
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    lines = [f"  {'.'.join(map(str, fault['loc'])) or '(whole)'}: {fault['msg']}" for fault in faults]
    hint = f"set in {files} or by {ENVIRONMENT_PREFIX}<SECTION>__<KEY>"
    return "\n".join([f"settings cannot be used ({hint}):", *lines])
