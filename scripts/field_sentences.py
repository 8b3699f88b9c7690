"""What the reference pages say of a class's fields: the sentence below each, its type in words, its default."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

SHA256_PATTERN = "^[0-9a-f]{64}$"
_LAST_TIME = 4_102_444_800_000
_BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
_WORDS = {"integer": "integer", "number": "number", "boolean": "boolean", "null": "null", "object": "mapping"}


def sentences(described: type) -> dict[str, str]:
    """The string literal below each field, by field, of a class and those it inherits from."""
    found: dict[str, str] = {}
    for each in reversed(described.__mro__):
        if each.__module__.split(".")[0] in ("services", "twinloop", "schemas"):
            found.update(_below_fields(each))
    return found


def _below_fields(described: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(described))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def first_sentence(described: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(described) or "").splitlines()[0]


def is_section(annotation: Any) -> bool:
    """Whether a field holds fields of its own."""
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation))


def schema_of(described: type) -> dict[str, Any]:
    """JSON Schema of a class, as it is read."""
    return TypeAdapter(described).json_schema(mode="validation")


def type_words(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON Schema in words; patterns other than a digest's are left out."""
    if "$ref" in node:
        return type_words(definitions[node["$ref"].rpartition("/")[2]], definitions)
    options = node.get("anyOf") or node.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(type_words(each, definitions) for each in options))
    if "const" in node:
        return f"`{json.dumps(node['const'])}`"
    if "enum" in node:
        return " or ".join(f"`{each}`" for each in node["enum"])
    if node.get("type") == "array":
        inner = node.get("items") or (node.get("prefixItems") or [{}])[0]
        return f"list of {type_words(inner, definitions)}"
    if node.get("type") == "object" and "properties" in node:
        return f"{node['title']}"
    if node.get("type") == "string":
        return _string_words(node)
    if node.get("maximum") == _LAST_TIME:
        return "milliseconds since 1970 UTC"
    words = _WORDS.get(str(node.get("type")), "any")
    return " ".join([words, *(f"{sign} {node[bound]:g}" for bound, sign in _BOUNDS if bound in node)])


def _string_words(node: Mapping[str, Any]) -> str:
    if node.get("pattern") == SHA256_PATTERN:
        return "SHA-256"
    return {"path": "path", "password": "secret"}.get(str(node.get("format")), "string")


def value_words(value: object) -> str:
    """A default as one would write it in YAML."""
    if isinstance(value, Path):
        return f"`{value}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
