"""Alert rules name only metrics which the services expose, fire when they should, and lead to a page that helps."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from services.gatekeeper.settings import GatekeeperSettings
from tests.fixtures.promtool import promtool_program
from tests.repository.exposed import SERVICES, every_sample_name, named_in
from twinloop.cli.app import build_app
from twinloop.settings_loader import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
CASES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.test.yml").read_text())["tests"]
PAGES = sorted(ROOT.glob("docs/runbooks/*.md"))
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def promtool(*arguments: str, stdin: str | None = None) -> str:
    """What promtool said; skips where it is not installed."""
    done = subprocess.run(
        [promtool_program(), *arguments], cwd=DEPLOY, input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def commands(page: Path) -> list[list[str]]:
    """The words of every `twinloop` line in a page's shell blocks."""
    lines = [line for text in blocks(page, "bash") for line in text.splitlines()]
    ours = [line.split(" | ")[0] for line in lines if line.startswith("twinloop ")]
    return [shlex.split(line, comments=True)[1:] for line in ours]


@each_rule
def test_an_alert_names_only_metrics_that_are_exposed(rule: dict[str, str]) -> None:
    assert named_in(rule["expr"]) - every_sample_name() == set()


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    linked = [rule["annotations"]["runbook_url"] for rule in RULES]
    assert sorted(linked) == [path.relative_to(ROOT).as_posix() for path in PAGES]


@each_rule
def test_its_page_repeats_the_query_that_ends_it(rule: dict[str, Any]) -> None:
    assert blocks(ROOT / rule["annotations"]["runbook_url"], "promql") == [rule["expr"].strip() + "\n"]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/operations.md"], ids=lambda page: page.stem)
def test_every_command_a_page_names_is_one_the_program_takes(page: Path) -> None:
    group: Any = typer.main.get_command(build_app())
    found = commands(page)
    assert found
    for words in found:
        command, rest = group, words
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, f"{page.name}: twinloop {shlex.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        assert command.make_context(words[0], list(rest)).command is command


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    fired = {
        case["alertname"] for test in CASES for case in test.get("alert_rule_test", ()) if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in RULES}
    assert any("ALERTS" in each["expr"] for test in CASES for each in test.get("promql_expr_test", ()))


def test_the_limits_are_those_of_the_gatekeeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLOOP_STORE__URL", "memory://")
    settings = load_settings(GatekeeperSettings, ROOT / "configs/gatekeeper.yaml")
    limits = settings.gatekeeper.policy.rollback
    by_name = {rule["alert"]: float(rule["expr"].split(">")[-1]) for rule in RULES if ">" in rule["expr"]}
    assert by_name["TwinLoopErrorShareHigh"] == limits.error_max
    assert by_name["TwinLoopAnswersSlow"] * 1000 == limits.p95_ms
    assert by_name["TwinLoopToxicityHigh"] == limits.toxicity_max


def test_promtool_accepts_rules_and_configuration_and_the_cases_hold() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts.test.yml")


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_promtool_finds_nothing_to_say_about_the_metrics_of_a_service(service: str) -> None:
    registry = CollectorRegistry()
    SERVICES[service](registry)
    assert promtool("check", "metrics", stdin=generate_latest(registry).decode()) == ""
