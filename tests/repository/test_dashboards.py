"""Every panel of every dashboard asks Prometheus a question that it can answer from our metrics."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.promtool import promtool_program
from tests.repository.exposed import SERVICES, every_sample_name, families, named_in

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy/grafana"
PAGES: list[dict[str, Any]] = [
    json.loads(path.read_text()) for path in sorted(GRAFANA.glob("dashboards/*.json"))
]
SOURCE = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page["uid"])


def expressions(page: dict[str, Any]) -> list[str]:
    """Every query of a dashboard, a variable replaced by one of its values."""
    asked = [target["expr"] for panel in page["panels"] for target in panel.get("targets", ())]
    asked += [note["expr"] for note in page["annotations"]["list"]]
    return [text.replace("$domain", "law") for text in asked]


@each_page
def test_every_panel_names_only_metrics_that_are_exposed(page: dict[str, Any]) -> None:
    for expression in expressions(page):
        assert named_in(expression) or "up{" in expression, expression
        assert named_in(expression) <= every_sample_name(), expression


@each_page
def test_every_panel_asks_the_provisioned_source_and_has_a_place_of_its_own(page: dict[str, Any]) -> None:
    panels = page["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all(each == {"type": "prometheus", "uid": SOURCE["uid"]} for each in asked)


def test_the_overview_shows_what_a_person_on_call_asks_first() -> None:
    overview = next(page for page in PAGES if page["uid"] == "twinloop-overview")
    named = {name for expression in expressions(overview) for name in named_in(expression)}
    assert named >= {
        *("twinloop_phase", "twinloop_routed_queries_total", "twinloop_answers_total"),
        *("twinloop_answer_duration_seconds_bucket", "twinloop_labelled_answers_total"),
        *(
            "twinloop_canary_evidence_ratio",
            "twinloop_consumer_lag_records",
            "twinloop_trainer_dead_letters_total",
        ),
        *("twinloop_training_duration_seconds_count", "twinloop_feedback_events_total"),
    }
    assert len({page["uid"] for page in PAGES}) == len(PAGES)


def test_promtool_can_read_every_query(tmp_path: Path) -> None:
    promtool = promtool_program()
    asked = [expression for page in PAGES for expression in expressions(page)]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_the_page_lists_every_metric_with_its_service_and_every_alert() -> None:
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    for service in SERVICES:
        for family in families(service):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert f"| `{name}` | {service} | {family.type} |" in page
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert f"| [{rule['alert']}](runbooks/{rule['alert']}.md) | {rule['labels']['severity']} |" in page
