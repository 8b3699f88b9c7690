"""The generated pages: every setting and every topic, explained, under names that work."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.catalogue import EVENTS
from schemas.generate import asyncapi
from scripts import topics_page
from scripts.configuration_page import (
    SERVICES,
    Setting,
    learning_part,
    page,
    service_parts,
    shared_parts,
    variable_of,
)
from scripts.reference_pages import DOCS, main, rendered
from twinloop.settings_loader import load_settings

CONFIGS = Path("configs")
SHARED = [each for part in shared_parts() for each in part.settings]
OWN = {service: [each for part in service_parts(service) for each in part.settings] for service in SERVICES}


def test_the_committed_pages_are_those_the_classes_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_page_that_differs_is_named_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (DOCS / "topics.md").read_text(encoding="utf-8")
    monkeypatch.setattr(topics_page, "page", lambda: "something else\n")
    assert main(["--check"]) == 1
    assert "docs/topics.md: differs; run `make contracts`" in capsys.readouterr().err
    assert (DOCS / "topics.md").read_text(encoding="utf-8") == before


def test_every_setting_is_explained_in_a_sentence() -> None:
    settings = [*SHARED, *learning_part().settings, *(each for own in OWN.values() for each in own)]
    assert [each.key for each in settings if len(each.sentence) < 10] == []


def test_the_page_names_every_gate_with_its_variable() -> None:
    text = page()
    for key in ("canary.min_shadow", "qa.pass_rate_min", "rollback.error_max", "ramp.basis_points"):
        assert (
            f"`gatekeeper.policy.{key}`<br>`{variable_of(('gatekeeper', 'policy', *key.split('.')))}`" in text
        )
    assert "| `0.05` |" in text


def as_variable(setting: Setting) -> str | None:
    """The default as the environment would carry it; None where nothing but a section can be set."""
    plain = isinstance(setting.default, (bool, int, float, str, Path)) and setting.default != ""
    return str(setting.default) if plain and not setting.is_set_through_parent else None


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_on_the_page_is_one_the_service_reads(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every default is given back through its variable; a name nobody knows would be refused."""
    monkeypatch.setenv("TWINLOOP_STORE__URL", "memory:///")
    without = load_settings(SERVICES[service])
    given = 0
    for setting in [*SHARED, *OWN[service]]:
        value = as_variable(setting)
        if value is not None:
            monkeypatch.setenv(setting.variable, value)
            given += 1
    assert given > len(SHARED) // 2
    assert load_settings(SERVICES[service]) == without


def test_a_variable_reaches_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLOOP_STORE__URL", "memory:///")
    monkeypatch.setenv(variable_of(("gatekeeper", "policy", "canary", "min_shadow")), "77")
    loaded = load_settings(SERVICES["gatekeeper"], CONFIGS / "gatekeeper.yaml")
    assert loaded.model_dump()["gatekeeper"]["policy"]["canary"]["min_shadow"] == 77


def test_what_is_shipped_is_shown_where_it_is_not_the_default() -> None:
    by_key = {each.key: each for each in OWN["gatekeeper"]}
    assert by_key["gatekeeper.policy.canary.silent_shadow"].shipped == "hold"
    row = next(line for line in page().splitlines() if "`gatekeeper.policy.canary.silent_shadow`" in line)
    assert '`"error"`, shipped `"hold"`' in row


def test_every_topic_event_and_header_of_the_asyncapi_document_is_on_the_page() -> None:
    text, document = topics_page.page(), asyncapi()
    for channel in document["channels"].values():
        assert f"\n## `{channel['address'].removeprefix('twinloop.')}`\n" in text
    for event_type, event in EVENTS.items():
        section = text.split(f"\n### `{event_type}`\n")[1].split("\n### ")[0]
        assert all(f"| `{field}` |" in section for field in event.model_fields)
    for header in document["components"]["schemas"]["Headers"]["properties"]:
        assert f"`{header}`" in text


def test_the_pages_are_written_where_the_site_looks() -> None:
    assert {path.name for path in rendered()} == {"configuration.md", "topics.md"}
    assert {path.parent for path in rendered()} == {DOCS}
