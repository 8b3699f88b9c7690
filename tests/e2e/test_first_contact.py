"""What a newcomer tries on the embedded profile: each example in Python, each command that reports, with `--json`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from twinloop.cli.app import build_app
from twinloop.cli.exit_status import FAILED
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLES = Path("examples")
STARTER = Path("configs/starter/documents.jsonl")
QUESTIONS = (
    "What is the enforcing court of statute Markemfan?",
    "What is the maximum fine of statute Fencen?",
)
ARGUMENTS = {
    "ask": QUESTIONS[:1],
    "rate": (QUESTIONS[0], "Lima [law-9743]"),
    "answers": QUESTIONS,
    "ask_async": QUESTIONS,
    "rate_async": QUESTIONS[:1],
    "answers_async": QUESTIONS[:1],
}
ENDS_WITH = {
    "ask": "['law-9743']",
    "answers": "[law-9499]",
    "ask_async": "[law-9499]",
    "answers_async": "[law-9743]",
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = Home(tmp_path_factory.mktemp("embedded-home"))
    with Installation(Plan(home=home, documents=STARTER), print) as installation:
        yield installation


def run(name: str, servers: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), servers, *ARGUMENTS[name]],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_runs_as_written(name: str, embedded: Installation) -> None:
    lines = run(name, embedded.kafka.bootstrap_servers)
    assert lines
    if not name.startswith("rate"):
        assert any(line.endswith(ENDS_WITH[name]) for line in lines)
        return
    given, _, status = lines[-1].partition(" ")
    assert len(given) == 32
    assert status == "no status yet" or given in status


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_is_short_enough_to_be_read_at_once(name: str) -> None:
    """Its own lines: what is inside `with`, which is five at most."""
    blocks = [
        each
        for each in ast.walk(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8")))
        if isinstance(each, (ast.With, ast.AsyncWith))
    ]
    assert len(blocks) == 1
    assert (blocks[0].end_lineno or 0) - blocks[0].lineno <= 5


@pytest.mark.parametrize(
    ("line", "status", "holds"),
    [
        (("ask", QUESTIONS[0]), 0, {"query_id", "text", "receipt", "release"}),
        (("rate", "up"), 0, {"id", "query_id", "rating"}),
        (("feedback", "0" * 32), FAILED, {"feedback_id", "status"}),
        (("status",), 0, {"state", "processes"}),
        (("history",), 0, {"epoch", "line", "evidence"}),
        (("releases",), 0, {"release", "parent", "role"}),
        (("watch", "--from-start", "--seconds", "3"), 0, {"epoch", "line"}),
        (("doctor",), 0, {"check", "status", "says"}),
        (("keys", "init"), 0, {"public_file", "keys"}),
        (("tokens", "add", "eva"), 0, {"id", "token"}),
        (("tokens", "list"), 0, {"id", "role"}),
        (("tokens", "revoke", "eva"), 0, {"id", "revoked"}),
        (("pause", "--reason", "a look"), 0, {"epoch", "kind"}),
        (("resume", "--reason", "seen"), 0, {"epoch", "kind"}),
        (("train", "--reason", "a look"), 0, {"action", "nonce", "result"}),
        (("replay", "--from-log"), 0, set()),
    ],
    ids=lambda value: " ".join(value[:2])[:30] if isinstance(value, tuple) else "",
)
def test_what_a_command_reports_is_json_objects_one_a_line(
    line: tuple[str, ...],
    status: int,
    holds: set[str],
    embedded: Installation,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ended = CliRunner().invoke(build_app(), [*line, "--json", "--home", str(embedded.plan.home.root)])
    assert ended.exit_code == status, ended.exception or ended.output
    shown = [json.loads(each) for each in [*ended.stdout.splitlines(), *capfd.readouterr().out.splitlines()]]
    assert shown
    assert all(isinstance(each, dict) and holds <= set(each) for each in shown)
