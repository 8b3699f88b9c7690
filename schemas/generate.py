"""Writes the published forms of the contracts: one JSON Schema an event type and one AsyncAPI 3 document.

`python -m schemas.generate` writes them under `schemas/generated/`; `--check` writes nothing and exits 1 where what
is committed differs, so that a change of a model without its published form cannot land; `--publish` also makes them
the contract of the next release, against which breaking changes are told.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from schemas import headers
from schemas.catalogue import EVENTS

HERE = Path(__file__).parent
GENERATED = HERE / "generated"
PUBLISHED = HERE / "published"
"""The JSON Schemas of the last release: what readers and writers out there rely on."""
ASYNCAPI_VERSION = "3.0.0"
CONTRACT_VERSION = "1.0.0"


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of every event, by CloudEvents type."""
    return {
        event_type: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:twinloop:{event_type}",
            **event.model_json_schema(mode="serialization"),
        }
        for event_type, event in sorted(EVENTS.items())
    }


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3 document of every declared topic, as an application beside the system sees it."""
    topics = yaml.safe_load((HERE / "topics.yaml").read_text(encoding="utf-8"))["topics"]
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "NEXUS TwinLoop topics",
            "version": CONTRACT_VERSION,
            "description": "Every topic with its key, retention and event types. "
            "Names carry the installation's prefix, `twinloop.` by default.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_identifier(name): _channel(name, topic) for name, topic in topics.items()},
        "operations": _operations(topics),
        "components": {
            "messages": {_identifier(event_type): _message(event_type) for event_type in sorted(EVENTS)},
            "schemas": {"Headers": _header_schema()},
        },
    }


def _channel(name: str, topic: dict[str, Any]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": f"twinloop.{name}",
        "description": f"{topic['description']} Key: {topic['key']}.",
        "messages": {
            _identifier(event): {"$ref": f"#/components/messages/{_identifier(event)}"}
            for event in topic["events"]
        },
        "bindings": {"kafka": {"topicConfiguration": _topic_configuration(topic), "bindingVersion": "0.5.0"}},
    }
    if isinstance(topic["partitions"], int):
        channel["bindings"]["kafka"]["partitions"] = topic["partitions"]
    return channel


def _topic_configuration(topic: dict[str, Any]) -> dict[str, Any]:
    retention = -1 if topic["retention"] == "forever" else topic["retention"] * 3_600_000
    return {"cleanup.policy": topic["cleanup"].split(","), "retention.ms": retention}


def _operations(topics: dict[str, Any]) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for name, topic in topics.items():
        channel = {"$ref": f"#/channels/{_identifier(name)}"}
        for service in topic["producers"]:
            operations[_identifier(f"{service} sends {name}")] = {"action": "send", "channel": channel}
        for service in topic["consumers"]:
            operations[_identifier(f"{service} receives {name}")] = {"action": "receive", "channel": channel}
    return operations


def _message(event_type: str) -> dict[str, Any]:
    return {
        "name": event_type,
        "title": EVENTS[event_type].__name__,
        "summary": (EVENTS[event_type].__doc__ or "").strip().splitlines()[0],
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": _inline(EVENTS[event_type].model_json_schema(mode="serialization"), event_type),
    }


def _inline(schema: dict[str, Any], event_type: str) -> dict[str, Any]:
    """Rewrite a JSON Schema for its place inside the AsyncAPI document: references, and the discriminator's form."""
    base = f"#/components/messages/{_identifier(event_type)}/payload/$defs/"
    rewritten: dict[str, Any] = _rewritten(schema, base)
    return rewritten


def _rewritten(node: Any, base: str) -> Any:
    if isinstance(node, list):
        return [_rewritten(each, base) for each in node]
    if not isinstance(node, dict):
        return node
    # OpenAPI, which pydantic writes, wants an object here; AsyncAPI 3 wants the property's name.
    return {
        key: value["propertyName"]
        if key == "discriminator" and isinstance(value, dict) and "propertyName" in value
        else value.replace("#/$defs/", base)
        if key == "$ref"
        else _rewritten(value, base)
        for key, value in node.items()
    }


def _header_schema() -> dict[str, Any]:
    added = {
        value: {"type": "string"}
        for name, value in sorted(vars(headers).items())
        if name.isupper() and isinstance(value, str)
    }
    cloudevents = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {"type": "string"},
        "ce_type": {"type": "string", "enum": sorted(EVENTS)},
        "ce_source": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time"},
        "traceparent": {"type": "string", "description": "W3C Trace Context"},
    }
    return {"type": "object", "properties": {**cloudevents, **added}}


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def rendered() -> dict[Path, str]:
    """Every generated file and its text."""
    files = {
        GENERATED / "json" / f"{event_type}.schema.json": schema
        for event_type, schema in json_schemas().items()
    }
    files[GENERATED / "asyncapi.json"] = asyncapi()
    return {path: json.dumps(content, indent=2, sort_keys=True) + "\n" for path, content in files.items()}


def main(arguments: list[str]) -> int:
    expected = rendered()
    committed = {path: path.read_text(encoding="utf-8") for path in GENERATED.rglob("*.json")}
    if "--check" in arguments:
        drifted = sorted(
            str(path.relative_to(HERE.parent))
            for path in expected.keys() | committed.keys()
            if expected.get(path) != committed.get(path)
        )
        for name in drifted:
            print(f"{name}: differs from the models; run `python -m schemas.generate`", file=sys.stderr)
        return 1 if drifted else 0
    for path in committed.keys() - expected.keys():
        path.unlink()
    for path, text in expected.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if "--publish" in arguments and path.parent.name == "json":
            PUBLISHED.mkdir(exist_ok=True)
            (PUBLISHED / path.name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
