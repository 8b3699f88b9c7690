"""The declared topics: names with their prefix, partitions and retention, read from `schemas/topics.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import schemas
from twinloop.bus.settings import DEAD_LETTER_MAX_BYTES
from twinloop.bus.topic_spec import TopicSpec
from twinloop.errors import ConfigError

DECLARATIONS = Path(schemas.__file__).parent / "topics.yaml"
DEAD_LETTERS = "dead-letters"
_HOUR_MS = 3_600_000
_RECORD_MAX_BYTES = 1024 * 1024 + 16 * 1024


class TopicDeclaration(BaseModel):
    """One topic as declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(min_length=10)
    key: str
    partitions: Literal["origin"] | int
    retention: Literal["forever"] | int
    """Hours."""
    cleanup: Literal["delete", "compact", "compact,delete"]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    events: tuple[str, ...]
    backup: int | None = None
    """Place in the order in which a back-up takes the ends of topics, effects before causes; None leaves it out."""


class TopicSettings(BaseModel):
    """How the declared topics are laid out in one installation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prefix: str = Field(default="twinloop.", pattern=r"^[a-z0-9.-]{0,64}$")
    """Put before every declared name, so that installations can share a cluster."""
    origin_partitions: int = Field(default=4, ge=1, le=1024)
    """Partitions of `queries` and of every topic that follows its partitioning; cannot shrink later."""
    replication_factor: int = Field(default=1, ge=1, le=9)
    """Copies of each partition; 3 in production."""


@dataclass(frozen=True)
class TopicCatalogue:
    """Declared topics under one installation's settings."""

    declarations: dict[str, TopicDeclaration]
    settings: TopicSettings

    @classmethod
    def load(
        cls, *, prefix: str = "twinloop.", origin_partitions: int = 4, path: Path = DECLARATIONS
    ) -> TopicCatalogue:
        return cls.under(TopicSettings(prefix=prefix, origin_partitions=origin_partitions), path=path)

    @classmethod
    def under(cls, settings: TopicSettings, *, path: Path = DECLARATIONS) -> TopicCatalogue:
        """Read the declarations; raises ConfigError naming the file and the topic at fault."""
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            declared = {name: TopicDeclaration(**entry) for name, entry in document["topics"].items()}
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
            raise ConfigError(f"{path}: not a readable list of topics: {error}") from error
        return cls(declared, settings)

    def name(self, topic: str) -> str:
        """The full name of a declared topic; KeyError for one that is not declared."""
        if topic not in self.declarations:
            raise KeyError(f"topic {topic!r} is not declared in {DECLARATIONS.name}")
        return self.settings.prefix + topic

    def declared_name(self, full_name: str) -> str:
        """The inverse of `name`."""
        return full_name.removeprefix(self.settings.prefix)

    def partitions(self, topic: str) -> int:
        declared = self.declarations[topic].partitions
        return self.settings.origin_partitions if declared == "origin" else declared

    def backed_up(self) -> tuple[str, ...]:
        """Declared names of the topics a back-up holds, effects before their causes."""
        ranked = [(each.backup, name) for name, each in self.declarations.items() if each.backup is not None]
        return tuple(name for _, name in sorted(ranked))

    def specs(self) -> tuple[TopicSpec, ...]:
        """What an admin client needs to create every topic."""
        return tuple(self._spec(name) for name in self.declarations)

    def _spec(self, topic: str) -> TopicSpec:
        declared = self.declarations[topic]
        retention = -1 if declared.retention == "forever" else declared.retention * _HOUR_MS
        limit = DEAD_LETTER_MAX_BYTES + 64 * 1024 if topic == DEAD_LETTERS else _RECORD_MAX_BYTES
        config = {
            "cleanup.policy": declared.cleanup,
            "retention.ms": str(retention),
            "max.message.bytes": str(limit),
        }
        return TopicSpec(self.name(topic), self.partitions(topic), config)
