"""The OpenAPI document shows an example of everything that is sent, and each is what its schema says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from services.api.app import openapi
from tests.unit.api.desk import make_desk


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return openapi(make_desk(tmp_path_factory.mktemp("desk")).app)


def sent(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every parameter, request body and response: its place, and what holds its schema."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = f"{method.upper()} {path}"
            for parameter in operation.get("parameters", ()):
                yield f"{place}: {parameter['name']}", parameter
            for status, reply in [
                ("body", operation.get("requestBody", {})),
                *operation["responses"].items(),
            ]:
                for kind, media in reply.get("content", {}).items():
                    yield f"{place}: {status} {kind}", media


def examples_of(document: dict[str, Any], holder: dict[str, Any]) -> list[Any]:
    schema = holder["schema"]
    name = schema.get("$ref", "").rpartition("/")[2]
    said = document["components"]["schemas"][name] if name else schema
    own = [holder["example"]] if "example" in holder else []
    return [*own, *said.get("examples", ())]


def test_everything_that_is_sent_has_an_example(document: dict[str, Any]) -> None:
    assert [place for place, holder in sent(document) if not examples_of(document, holder)] == []
    replies = [
        reply for ways in document["paths"].values() for way in ways.values() for reply in way["responses"]
    ]
    assert len(replies) > 200


def test_every_example_is_what_its_schema_says(document: dict[str, Any]) -> None:
    wrong = []
    for place, holder in sent(document):
        schema = {**holder["schema"], "components": document["components"]}
        for example in examples_of(document, holder):
            faults = Draft202012Validator(schema).iter_errors(example)
            wrong += [f"{place}: {fault.json_path}: {fault.message}" for fault in faults]
    assert wrong == []


def test_every_schema_has_a_name_people_can_read(document: dict[str, Any]) -> None:
    assert [name for name in document["components"]["schemas"] if "__" in name] == []
