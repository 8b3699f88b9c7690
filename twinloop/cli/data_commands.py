"""`import`: documents and questions from files into the topics."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Registered once the importers are there."""
