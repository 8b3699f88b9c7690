"""The topics reference, from the AsyncAPI document, `schemas/topics.yaml` and the examples."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from schemas.catalogue import EVENTS
from schemas.event import Event, Frozen
from schemas.generate import asyncapi
from scripts.field_sentences import cell, first_sentence, schema_of, sentences, type_words, value_words

SCHEMAS = Path(__file__).parents[1] / "schemas"
INTRODUCTION = """\
# Topics reference

Written by `make contracts` from [`topics.yaml`](../schemas/topics.yaml), the models in `schemas/` and the
[AsyncAPI 3 document](../schemas/generated/asyncapi.json), which says the same for programs; `make check` fails where
they differ. Each event's [JSON Schema](../schemas/generated/json/twinloop.query.v1.schema.json) stands beside it.

Values are JSON. Names carry the installation's prefix (`topics.prefix`), `twinloop.` by default. Unknown fields are
refused, and a breaking change is a new event type (`.v2`) beside the old one. [Client](client.md) shows how to ask and
rate from Python and, with plain Kafka clients, from Java.
"""
HEADERS = """\
## Headers

CloudEvents 1.0 in Kafka's binary mode, and the W3C trace context. A record without CloudEvents headers counts as the
first event type of its topic, so that a line typed into `kafka-console-producer` is a valid query.

| header | on | what |
|---|---|---|
| `ce_specversion`, `ce_id`, `ce_source`, `ce_time` | every record | CloudEvents |
| `ce_type` | every record | the event type, with its version |
| `content-type` | every record | `application/json` |
| `traceparent` | queries and what follows from them | W3C Trace Context; one trace runs from the query to its outcome |
| `tl-client` | answers | the query's `client`, so that a reader can filter without parsing |
| `tl-stamp` | routed queries | slot, arm, release, epoch, domain, purpose, origin, times, hops, as JSON |
| `tl-error`, `tl-error-kind`, `tl-service`, `tl-at` | dead letters | what was wrong, who put it aside, when |
| `tl-origin-topic`, `tl-origin-partition`, `tl-origin-offset` | dead letters | where the record came from |
"""


def page() -> str:
    """The whole page."""
    declared = yaml.safe_load((SCHEMAS / "topics.yaml").read_text(encoding="utf-8"))["topics"]
    blocks = [INTRODUCTION, _overview(declared), HEADERS]
    blocks += [_topic(name, declared[name], channel) for name, channel in _channels(declared)]
    blocks += ["## Events\n", *(_event(EVENTS[each], declared) for each in sorted(EVENTS))]
    return "\n".join(blocks).rstrip() + "\n"


def _channels(declared: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The document's channels under their declared names; raises KeyError where one is missing."""
    channels = {each["address"].removeprefix("twinloop."): each for each in asyncapi()["channels"].values()}
    for name in declared:
        yield name, channels[name]


def _overview(declared: Mapping[str, Any]) -> str:
    lines = ["| topic | from | to | what |", "|---|---|---|---|"]
    for name, topic in declared.items():
        writers, readers = ", ".join(topic["producers"]), ", ".join(topic["consumers"])
        lines.append(
            f"| [`{name}`](#{_anchor(name)}) | {writers} | {readers} | {cell(topic['description'])} |"
        )
    return "\n".join(lines) + "\n"


def _topic(name: str, topic: Mapping[str, Any], channel: Mapping[str, Any]) -> str:
    kafka = channel["bindings"]["kafka"]
    origin = (
        "as many as `queries`; a record goes to its query's"
        if name != "queries"
        else "`topics.origin_partitions`"
    )
    kept = kafka["topicConfiguration"]["retention.ms"]
    events = ", ".join(f"[`{each}`](#{_anchor(each)})" for each in topic["events"])
    return (
        f"## `{name}`\n\n{topic['description']}\n\n"
        "| key | partitions | kept | clean-up | events |\n|---|---|---|---|---|\n"
        f"| {topic['key']} | {kafka.get('partitions', origin)} | {_duration(kept)} "
        f"| {', '.join(kafka['topicConfiguration']['cleanup.policy'])} | {events or 'any, as it was'} |\n"
    )


def _duration(milliseconds: int) -> str:
    if milliseconds < 0:
        return "for ever"
    hours = milliseconds // 3_600_000
    return f"{hours // 24} days" if hours % 24 == 0 and hours > 24 else f"{hours} hours"


def _event(event: type[Event], declared: Mapping[str, Any]) -> str:
    blocks = [f"### `{event.type}`\n\n{first_sentence(event)}\n", _fields(event)]
    for part in _parts(event):
        blocks.append(f"`{part.__name__}`: {first_sentence(part)}\n\n{_fields(part)}")
    example = _example(event, declared)
    if example:
        summary = '<details markdown="1"><summary>An example</summary>'
        blocks.append(f"{summary}\n\n```json\n{example}\n```\n\n</details>\n")
    return "\n".join(blocks)


def _fields(described: type[Frozen]) -> str:
    schema, told = schema_of(described), sentences(described)
    lines = ["| field | type | default | what |", "|---|---|---|---|"]
    for name, node in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else value_words(node.get("default"))
        words = cell(type_words(node, schema.get("$defs", {})))
        lines.append(f"| `{name}` | {words} | {cell(default)} | {cell(told.get(name, ''))} |")
    return "\n".join(lines) + "\n"


def _parts(event: type[Frozen]) -> list[type[Frozen]]:
    """The classes an event's fields are made of, each once, in the order of the fields."""
    found: list[type[Frozen]] = []
    for field in event.model_fields.values():
        for each in _classes(field.annotation):
            if each not in found and each is not event:
                found += [each, *(inner for inner in _parts(each) if inner not in (each, *found))]
    return found


def _classes(annotation: Any) -> Iterator[type[Frozen]]:
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for each in typing.get_args(annotation):
            yield from _classes(each)


def _example(event: type[Event], declared: Mapping[str, Any]) -> str:
    """The first golden message of the event's topic that it reads, or nothing."""
    topics = [name for name, topic in declared.items() if event.type in topic["events"]]
    for path in sorted(path for name in topics for path in (SCHEMAS / "examples" / name).rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        try:
            event.model_validate_json(text)
        except ValueError:
            continue
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return ""


def _anchor(name: str) -> str:
    """As GitHub makes it of a heading in code style."""
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter in "-_")
