"""Alert rules name only metrics which the services expose, and each alert has a page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.gatekeeper.metrics import GatekeeperMetrics
from services.inference.metrics import InferenceMetrics
from services.router.metrics import RouterMetrics
from services.trainer.metrics import TrainerMetrics

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
SERVICES = (GatekeeperMetrics, InferenceMetrics, RouterMetrics, TrainerMetrics)


def _exposed() -> set[str]:
    """Every sample name the registries can give, those of series not yet seen included."""
    names: set[str] = set()
    for metrics in SERVICES:
        registry = CollectorRegistry()
        metrics(registry)
        for family in registry.collect():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
            names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_only_metrics_that_are_exposed(rule: dict[str, str]) -> None:
    named = set(re.findall(r"\btwinloop_\w+", rule["expr"]))
    assert named - _exposed() == set()


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    linked = {rule["annotations"]["runbook_url"] for rule in RULES}
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/runbooks/*.md")}
    assert linked == pages
    assert len(linked) == len(RULES)


def test_promtool_accepts_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH")
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
