"""What commands print: lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    **dict.fromkeys(("promote", "bake_end", "ok", "yes"), "green"),
    **dict.fromkeys(("reject", "abort", "rollback", "restore", "adopt", "bad", "NO"), "bold red"),
    **dict.fromkeys(("canary", "ramp", "pause", "warning"), "yellow"),
}
"""Colours on a terminal, by kind of decision, finding of `doctor`, and readiness."""


def print_json(value: object) -> None:
    """One compact JSON object on one line, flushed, so that a pipe sees it at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str) + "\n")
    sys.stdout.flush()


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """A table with the keys of the first row as columns; says so where there are no rows."""
    console = Console(soft_wrap=False)
    if not rows:
        console.print(f"{title}: none")
        return
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value), style=STYLES.get(str(value), "")) for value in row.values()))
    console.print(table)


def say(line: str, *, about: str = "") -> None:
    """One line for people, flushed; on a terminal in the colour of what it is about."""
    if about in STYLES and sys.stdout.isatty():
        Console().print(Text(line, style=STYLES[about]), soft_wrap=True)
    else:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def warn(line: str) -> None:
    """One line beside the result, on standard error, so that what programs read stays whole."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def short(digest: str | None) -> str:
    """The first twelve characters of a digest, as people quote it."""
    return digest[:12] if digest else "none"
