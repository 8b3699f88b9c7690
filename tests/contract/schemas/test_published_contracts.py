"""The published contracts: complete, generated, valid, and changed only with a new version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from schemas import generate
from schemas.catalogue import EVENTS

ROOT = Path(generate.__file__).parent
EXAMPLES = sorted((ROOT / "examples").rglob("*.json"))
OFFICIAL = Path(__file__).parent / "asyncapi" / "3.0.0.json"


def _example(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_a_golden_example_is_an_event_and_says_what_it_always_said(path: Path) -> None:
    """Fields added later with a default do not change what an older record says."""
    example = _example(path)
    event = EVENTS[example["type"]].model_validate_json(json.dumps(example["value"]))
    assert event.model_dump(mode="json", exclude_unset=True) == example["value"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_a_golden_example_fits_the_published_json_schema(path: Path) -> None:
    example = _example(path)
    jsonschema.validate(example["value"], generate.json_schemas()[example["type"]])


def test_every_event_type_has_an_example_in_a_topic_that_declares_it() -> None:
    topics = yaml.safe_load((ROOT / "topics.yaml").read_text(encoding="utf-8"))["topics"]
    declared = {event for topic in topics.values() for event in topic["events"]}
    shown = {_example(path)["type"] for path in EXAMPLES}
    assert declared == set(EVENTS)
    assert shown == set(EVENTS)
    for path in EXAMPLES:
        topic, version = path.relative_to(ROOT / "examples").parts[:2]
        assert _example(path)["type"] in topics[topic]["events"]
        assert _example(path)["type"].endswith(f".{version}")


def test_what_is_committed_is_what_the_models_say() -> None:
    assert generate.main(["--check"]) == 0


def test_drift_between_models_and_published_forms_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "GENERATED", tmp_path)
    monkeypatch.setattr(generate, "HERE", tmp_path / "schemas")
    monkeypatch.setattr(generate, "asyncapi", dict)
    assert generate.main(["--check"]) == 1
    assert "twinloop.query.v1.schema.json: differs" in capsys.readouterr().err


def test_the_asyncapi_document_is_valid_by_the_official_schema() -> None:
    official = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    document = json.loads((generate.GENERATED / "asyncapi.json").read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(official)(official)
    assert [error.message for error in validator.iter_errors(document)] == []
    document["operations"]["router_sends_assignments"]["action"] = "shout"
    assert list(validator.iter_errors(document)), "the official schema must be able to refuse"


def test_every_reference_in_the_asyncapi_document_resolves() -> None:
    document = json.loads((generate.GENERATED / "asyncapi.json").read_text(encoding="utf-8"))
    for reference in _references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert isinstance(target, dict)


def test_no_field_of_a_published_version_was_removed_changed_or_made_required() -> None:
    """Compares with the schemas as last published; a breaking change takes a new event type beside the old one."""
    published = sorted(generate.PUBLISHED.glob("*.schema.json"))
    assert published, "schemas/published is empty; run `python -m schemas.generate --publish`"
    current = generate.json_schemas()
    for path in published:
        event_type = path.name.removesuffix(".schema.json")
        assert event_type in current, f"{event_type} was published and is gone"
        assert breaking_changes(json.loads(path.read_text(encoding="utf-8")), current[event_type]) == [], (
            event_type
        )


def test_a_breaking_change_is_recognised() -> None:
    old = {"properties": {"id": {"type": "string"}, "n": {"type": "integer"}}, "required": ["id"]}
    removed = {"properties": {"id": {"type": "string"}}, "required": ["id"]}
    retyped = {"properties": {"id": {"type": "integer"}, "n": {"type": "integer"}}, "required": ["id"]}
    demanded = {**old, "required": ["id", "n"]}
    added = {"properties": {**old["properties"], "new": {"type": "string"}}, "required": ["id"]}
    assert breaking_changes(old, removed) == ["n: removed"]
    assert breaking_changes(old, retyped) == ["id: changed"]
    assert breaking_changes(old, demanded) == ["n: now required"]
    assert breaking_changes(old, added) == []


def breaking_changes(old: dict[str, Any], new: dict[str, Any], where: str = "") -> list[str]:
    """What a reader or writer of `old` could trip over in `new`."""
    found = []
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(before):
        if name not in after:
            found.append(f"{where}{name}: removed")
        elif _shape(before[name]) != _shape(after[name]):
            found.append(f"{where}{name}: changed")
    found += [
        f"{where}{name}: now required"
        for name in sorted({*new.get("required", [])} - {*old.get("required", [])})
    ]
    for name, definition in sorted(old.get("$defs", {}).items()):
        if name in new.get("$defs", {}):
            found += breaking_changes(definition, new["$defs"][name], f"{name}.")
    return found


def _shape(schema: dict[str, Any]) -> dict[str, Any]:
    """What decides whether a value fits: everything but prose, and but words added to a closed list."""
    return {
        key: value for key, value in schema.items() if key not in ("description", "title", "default", "enum")
    }


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []
