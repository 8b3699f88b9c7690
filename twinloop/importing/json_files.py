"""Reading JSON and JSON Lines with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twinloop.errors import ConfigError
from twinloop.importing.rows import Refused


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
    """(line number, object or why not) of every line that is not blank."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _parsed_line(path, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 JSON Lines: {error}") from error


def json_list(path: Path) -> list[Any]:
    """A file that is one JSON list; raises ConfigError naming file and place otherwise."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 JSON: {error}") from error
    if not isinstance(value, list):
        raise ConfigError(f"{path}: expected a JSON list, found {type(value).__name__}")
    return value


def _parsed_line(path: Path, number: int, line: str) -> dict[str, Any] | Refused:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Refused(path, number, f"not JSON: {error}")
    return value if isinstance(value, dict) else Refused(path, number, "not a JSON object")
