"""One embedded installation from outside: a scrape of every service, each example, every report as JSON."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from tests.fixtures.promtool import promtool_program
from tests.repository.exposed import SERVICES, families
from twinloop.cli.app import build_app
from twinloop.cli.exit_status import FAILED
from twinloop.client.client import Client
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

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
    with Installation(Plan(home=home, documents=STARTER, api_port=0), print) as installation:
        yield installation


@pytest.fixture(scope="module")
def scrapes(embedded: Installation) -> dict[str, str]:
    """The metrics of each process, once a question has been answered."""
    with Client(embedded.kafka, embedded.topics, name="test") as client:
        assert client.ask(QUESTIONS[0], deadline_ms=60_000).error is None
    return {name: _scraped(spec.health_port) for name, spec in embedded.supervisor.specs.items()}


def test_every_service_exposes_every_metric_it_declares_and_no_other(scrapes: dict[str, str]) -> None:
    assert {name.partition("-")[0] for name in scrapes} == set(SERVICES)
    for name, text in scrapes.items():
        found = {family.name for family in text_string_to_metric_families(text)}
        # A counter's or a histogram's time of creation is a family of its own in this format.
        ours = {each for each in found if each.startswith("twinloop_") and not each.endswith("_created")}
        assert ours == {family.name for family in families(name.partition("-")[0])}, name


def test_a_worker_shows_its_circuits_before_anything_fails(scrapes: dict[str, str]) -> None:
    for slot in ("blue", "green"):
        series = f'twinloop_inference_circuits{{slot="{slot}",state="open"}} 0.0'
        assert series in scrapes[f"inference-{slot}-0"]


def test_promtool_finds_nothing_to_say_about_a_live_scrape(scrapes: dict[str, str]) -> None:
    promtool = promtool_program()
    for name, text in scrapes.items():
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), name


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


def _scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return str(reply.read().decode())
