"""Each example in Python, run as its first line says, against an installation on the embedded profile."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan

pytestmark = pytest.mark.slow

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
        assert lines[-1].endswith(ENDS_WITH[name])
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
