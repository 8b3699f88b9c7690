"""Whatever a command meets, programs read JSON lines or nothing; colours are for terminals."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.decisions import Decision
from tests.unit.cli.events import decision, record
from tests.unit.cli.test_help import COMMANDS
from twinloop.cli.app import build_app
from twinloop.cli.operation_commands import _show_logged
from twinloop.cli.output import print_table, say, warn
from twinloop.errors import TwinLoopError

STARTS_SERVERS = {("up",), ("demo",)}
"""They would bring an installation up here; what they print is read in tests/e2e."""
COMMANDS_HERE = [path for path in COMMANDS if path not in STARTS_SERVERS]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("path", COMMANDS_HERE, ids=" ".join)
def test_without_an_installation_it_prints_json_or_nothing_and_one_clear_error(
    path: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its own example with `--json`, in an empty folder: a new command is tried without being named here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWINLOOP_HOME", str(tmp_path / "home"))
    line = shlex.split(COMMANDS[path].epilog.removeprefix("Example: twinloop "))
    ended = CliRunner().invoke(build_app(), [*line, *([] if "--json" in line else ["--json"])])
    assert ended.exception is None or isinstance(ended.exception, (SystemExit, TwinLoopError))
    for each in [*ended.stdout.splitlines(), *capfd.readouterr().out.splitlines()]:
        assert isinstance(json.loads(each), dict)
    if isinstance(ended.exception, TwinLoopError):
        assert len(str(ended.exception)) > 20


@pytest.mark.parametrize(("kind", "colour"), [("promote", "32"), ("abort", "31"), ("canary", "33")])
def test_a_decision_has_a_colour_on_a_terminal_and_none_in_a_pipe(
    kind: str, colour: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: Decision = decision(kind=kind, line=f"{kind} 2ed4cfc8: error 0.8 % <= 1.0 % + 5 pts [x]")
    _show_logged(record(logged), as_json=False)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    _show_logged(record(logged), as_json=False)
    shown = terminal.getvalue()
    assert f"{colour}m" in shown
    assert plain.strip() in shown


def test_no_colour_is_shown_where_people_ask_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    say("aborted", about="abort")
    assert "31m" not in terminal.getvalue()
    assert "aborted" in terminal.getvalue()


def test_a_table_in_a_pipe_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("doctor", [{"what": "Redis", "status": "bad"}, {"what": "[keys]", "status": "ok"}])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[keys]" in shown


def test_what_stands_beside_the_result_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    warn("Kafka is silent")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Kafka is silent\n")
