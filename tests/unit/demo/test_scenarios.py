"""A scenario is passed only where something was looked at, all of it held, and no query was lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.event import DOMAINS
from twinloop.demo.scenarios.bad_rules import every_domain_another
from twinloop.demo.scenarios.drill import Counted, Finding
from twinloop.demo.scenarios.run import SCENARIOS, ScenarioReport, run_scenario
from twinloop.demo.scenarios.slow_shadow import Starved
from twinloop.errors import ConfigError
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.rules import read_rules
from twinloop.stack.child_process import ChildProcess

WHOLE = Counted(sent=10, answers=9, errors=1, dead_letters=0, lost=0, duplicates=0)
HELD = Finding("it holds", "it did", held=True)


def report(*findings: Finding, counted: Counted = WHOLE, profile: str = "kafka") -> ScenarioReport:
    return ScenarioReport("poison", profile, findings, counted, 1.0)  # type: ignore[arg-type]


def test_what_held_has_no_problem_and_the_document_says_so(tmp_path: Path) -> None:
    found = report(HELD)
    assert found.problems == ()
    written = json.loads(found.write(tmp_path).read_text())
    assert written["held"] is True
    assert written["findings"] == [{"expected": "it holds", "seen": "it did", "held": True}]
    assert found.summary()[-1] == "poison: the defence held, 1 s in all"


def test_one_thing_that_did_not_hold_fails_the_run() -> None:
    found = report(HELD, Finding("nobody is harmed", "three were", held=False))
    assert found.problems == ("nobody is harmed: three were",)
    assert "DID NOT HOLD" in found.summary()[-1]


def test_a_run_that_looked_at_nothing_or_lost_a_query_fails() -> None:
    assert report().problems == ("nothing was looked at",)
    assert report(HELD, counted=replace(WHOLE, lost=2)).problems == ("2 of 10 queries were lost",)


@pytest.mark.parametrize(("profile", "problems"), [("kafka", 1), ("embedded", 0)])
def test_an_answer_given_twice_fails_only_where_the_broker_hides_undone_work(
    profile: str, problems: int
) -> None:
    twice = replace(WHOLE, duplicates=1)
    assert len(report(HELD, counted=twice, profile=profile).problems) == problems


def test_an_unknown_scenario_is_refused_with_the_names_of_the_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="poison, slow-shadow, redis-loss, bad-rules"):
        run_scenario("fire", print, output=tmp_path)
    with pytest.raises(ConfigError, match="breaks what it runs on"):
        run_scenario("poison", print, output=tmp_path, profile="external")
    assert set(SCENARIOS) == {"poison", "slow-shadow", "redis-loss", "bad-rules"}


def test_the_swapped_rules_are_well_formed_and_mislead_every_keyword() -> None:
    rules = read_rules(Path("configs/rules.json").read_bytes(), name="rules")
    one, other = DomainChooser(rules), DomainChooser(every_domain_another(rules))
    asked = {domain: f"about {next(iter(rules.domains[domain].keywords))}" for domain in DOMAINS}
    told_apart = [text for domain, text in asked.items() if one.choose(text) == domain]
    assert told_apart
    assert all(other.choose(text) != one.choose(text) for text in told_apart)


def test_a_starved_process_stands_still_and_runs_freely_afterwards(tmp_path: Path) -> None:
    child = ChildProcess("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "l")
    child.start()
    try:
        with Starved(child):
            deadline = time.monotonic() + 5
            while _state(child) != "T":
                assert time.monotonic() < deadline
        assert _state(child) != "T"
    finally:
        child.signal(signal.SIGKILL)
        child.stop()


def _state(child: ChildProcess) -> str:
    """The scheduler's letter for the process; T is stopped."""
    asked = ["ps", "-o", "stat=", "-p", str(child.pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()[:1]
