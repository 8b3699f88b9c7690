"""Every command explains itself with an example that the command itself would take."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from twinloop.cli.app import build_app


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(build_app())))
each_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def test_the_commands_are_those_the_pages_name() -> None:
    assert {" ".join(path) for path in COMMANDS} >= {
        *("up", "init", "demo", "keys init", "ask", "rate", "feedback", "import"),
        *("doctor", "tokens add", "tokens list", "tokens revoke"),
        *("status", "watch", "history", "releases", "export"),
        *("promote", "approve", "rollback", "abort", "pause", "resume", "train"),
        *("ab start", "ab stop", "ab report"),
        "replay",
        *("pr propose", "pr list", "pr show", "pr approve", "pr reject"),
    }


@each_command
def test_help_says_what_it_does_and_ends_with_an_example(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(build_app(), [*path, "--help"])
    assert shown.exit_code == 0
    assert COMMANDS[path].help, "no sentence says what it does"
    assert f"Example: twinloop {' '.join(path)}" in " ".join(shown.output.split())


@each_command
def test_its_example_is_one_it_accepts(path: tuple[str, ...]) -> None:
    line = shlex.split(COMMANDS[path].epilog.removeprefix("Example: twinloop "))
    assert tuple(line[: len(path)]) == path
    context = COMMANDS[path].make_context(path[-1], line[len(path) :])
    assert context.command is COMMANDS[path]


@each_command
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    silent = [each.name for each in COMMANDS[path].params if not getattr(each, "help", None)]
    assert [name for name in silent if name != "help"] == []


@pytest.mark.parametrize(
    "path", [path for path in COMMANDS if path[0] not in ("keys", "up", "init", "train")]
)
def test_programs_can_read_what_it_prints(path: tuple[str, ...]) -> None:
    assert any("--json" in each.opts for each in COMMANDS[path].params)


def test_starting_the_command_line_loads_no_model_library() -> None:
    code = (
        "import sys; from twinloop.cli.app import build_app; build_app(); "
        "print(sorted({'torch', 'transformers', 'peft', 'faiss', 'faust', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@each_command
def test_it_can_print_json(path: tuple[str, ...]) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[path].params)
