"""What the bus needs to know to create a topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TopicSpec:
    """A topic's name, partition count and broker-side config (`retention.ms`, `cleanup.policy`, ...)."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
