"""A scrape of every running service: what it exposes is what the dashboards and alerts were written for."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.promtool import promtool_program
from tests.repository.exposed import SERVICES, families
from twinloop.client.client import Client
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
QUESTION = "What is the enforcing court of statute Markemfan?"


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The text of each process of an installation that has answered a question."""
    plan = Plan(home=Home(tmp_path_factory.mktemp("home")), documents=_STARTER, api_port=0)
    with Installation(plan, print) as installation:
        with Client(installation.kafka, installation.topics, name="test") as client:
            assert client.ask(QUESTION, deadline_ms=60_000).error is None
        yield {name: _scraped(spec.health_port) for name, spec in installation.supervisor.specs.items()}


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


def _scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return str(reply.read().decode())


_STARTER = Path("configs/starter/documents.jsonl")
