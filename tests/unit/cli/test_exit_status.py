"""A program that calls `twinloop` learns from the exit status what to do next."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from tests.unit.cli.events import answer
from twinloop.cli import __main__ as entry
from twinloop.cli import exit_status
from twinloop.errors import (
    ArtifactError,
    CommandRefused,
    ConfigError,
    InvalidEvent,
    NotReady,
    SignatureError,
    Transient,
    TwinLoopError,
)

ROOT = Path(__file__).parents[3]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["twinloop", *arguments])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    return int(ended.value.code or 0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation whose servers are not there."""
    profile = {"store": {"url": f"file://{tmp_path}"}, "kafka": {"bootstrap_servers": "127.0.0.1:1"}}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(profile))
    return tmp_path


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("kafka.bootstrap_servers: empty"), exit_status.CONFIG),
        (Transient("broker: silent"), exit_status.UNREACHABLE),
        (CommandRefused("rollback was refused"), exit_status.REFUSED),
        (InvalidEvent("not a feedback"), exit_status.FAILED),
        (ArtifactError("damaged"), exit_status.FAILED),
        (SignatureError("forged"), exit_status.FAILED),
        (NotReady("preparing"), exit_status.FAILED),
    ],
)
def test_each_error_has_its_status_and_is_told_in_one_line(
    error: TwinLoopError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> NoReturn:
        raise error

    monkeypatch.setattr(entry, "build_app", lambda: fails)
    assert run(monkeypatch, "status") == status
    told = capsys.readouterr()
    assert told.err == f"twinloop: {error}\n"
    assert told.out == ""


def test_an_interrupt_ends_as_a_shell_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "build_app", lambda: interrupted)
    assert run(monkeypatch, "watch") == 130


def test_statuses_differ_and_are_the_documented_ones() -> None:
    names = ("OK", "FAILED", "CONFIG", "UNREACHABLE", "REFUSED")
    statuses = [getattr(exit_status, name) for name in names]
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8").split("## Exit statuses")[1]
    documented = [int(number) for number in re.findall(r"^\| (\d+) \|", page.split("\n## ")[0], re.MULTILINE)]
    assert documented == [*sorted(set(statuses)), 130]


def test_no_installation_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--home", str(tmp_path / "nowhere")) == exit_status.CONFIG
    told = capsys.readouterr().err
    assert f"{tmp_path}/nowhere/profile.yaml" in told
    assert "twinloop up" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["up", "--profile", "docker"], "--profile 'docker'"),
        (["demo", "--profile", "docker"], "--profile 'docker'"),
        (["ask", "how long?", "--domain", "tax"], "--domain 'tax'"),
        (["rate", "sideways"], "rating 'sideways'"),
        (["rate", "up"], "last-answer.json"),
        (["pause", "--key", "nobody-9"], "nobody-9.pem"),
        (["status", "--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(
    arguments: list[str],
    named: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TWINLOOP_HOME", str(home))
    assert run(monkeypatch, *arguments) == exit_status.CONFIG
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nonsense"], ["ask"], ["status", "--colour"]])
def test_a_line_that_is_no_command_is_a_usage_error(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == exit_status.CONFIG
    assert "Usage" in capsys.readouterr().err


def test_an_error_answer_cannot_be_rated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"answer": answer("deadline").model_dump(mode="json"), "question": "how long?"}
    (home / "last-answer.json").write_text(json.dumps(told))

    assert answer("deadline").receipt is None
    monkeypatch.setattr("twinloop.client.Client", SilentClient)
    monkeypatch.setenv("TWINLOOP_HOME", str(home))
    assert run(monkeypatch, "rate", "down") == exit_status.FAILED


class SilentClient:
    """The real refusal of a rating, without a broker."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> SilentClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def rate(self, *arguments: object, **options: object) -> object:
        from twinloop.client.client import Client

        return Client.rate(self, *arguments, **options)  # type: ignore[arg-type]
