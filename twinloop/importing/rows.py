"""What every reader yields: one question with its answer and, where there is one, the passage it is answered from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Terms:
    """What a publisher's file does not say about itself; empty fields must then stand in the rows."""

    retrieved_at: int
    """Milliseconds since 1970-01-01 UTC."""
    source: str = ""
    licence: str = ""
    publisher: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Row:
    """One row as published; `line` is its line or, in a file that is one document, its number from 1."""

    path: Path
    line: int
    id: str
    domain: str
    question: str
    answer: str
    context: str
    title: str
    source: str
    licence: str
    publisher: str


@dataclass(frozen=True)
class Refused:
    """A row that was not taken, where it stands and why."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


Reader = Callable[[Path, Terms], Iterator["Row | Refused"]]
"""Reads one file or folder; raises ConfigError naming it where it cannot be read at all."""


def text_of(raw: Mapping[str, object], key: str) -> str:
    """The stripped text under `key`, empty where there is none or it is no text or number."""
    value = raw.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""
