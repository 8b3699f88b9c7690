"""Kafka as a small model: partitioned logs, transactions that are whole or nothing, fencing by generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Partition:
    """Committed records of one partition and the committed offset of its one consumer group."""

    records: list[Any] = field(default_factory=list)
    committed: int = 0
    generation: int = 0
    """Grows whenever the partition gets another owner; commits of an older generation are refused."""


@dataclass(frozen=True)
class Append:
    """One record of a transaction's output."""

    log: str
    partition: int
    record: Any


class Logs:
    """All partitions by (log name, number); created on first use."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, int], Partition] = {}

    def partition(self, log: str, number: int) -> Partition:
        return self._partitions.setdefault((log, number), Partition())

    def everything(self, log: str) -> list[Any]:
        """Every committed record of a log."""
        return [
            record for (name, _), part in self._partitions.items() if name == log for record in part.records
        ]

    def append(self, append: Append) -> None:
        self.partition(append.log, append.partition).records.append(append.record)

    def commit(self, source: Partition, generation: int, offset: int, outputs: list[Append]) -> bool:
        """Outputs and offset together; False, and nothing happens, where the partition has another owner now."""
        if source.generation != generation:
            return False
        source.committed = offset
        for output in outputs:
            self.append(output)
        return True
