"""The commands of `twinloop`, by what they are about."""

from __future__ import annotations

import typer

from twinloop.cli import (
    ab_commands,
    backup_commands,
    data_commands,
    installation_commands,
    operation_commands,
    pr_commands,
    question_commands,
    replay_commands,
    token_commands,
)

HELP = (
    "Keeps an LLM learning in production: active and shadow twins, gated by a canary, swapped in one write."
)


def build_app() -> typer.Typer:
    """All commands in one application."""
    app = typer.Typer(
        name="twinloop", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
    )
    installation_commands.register(app)
    question_commands.register(app)
    operation_commands.register(app)
    ab_commands.register(app)
    pr_commands.register(app)
    data_commands.register(app)
    backup_commands.register(app)
    replay_commands.register(app)
    token_commands.register(app)
    return app
