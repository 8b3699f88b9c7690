"""Events to records and back, and the names of topics."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.queries import Query
from schemas.readiness import Readiness
from twinloop.bus.records import Record
from twinloop.canonical import canonical_json, digest_of
from twinloop.codec import decode, encode
from twinloop.errors import ConfigError, InvalidEvent
from twinloop.topics import DECLARATIONS, TopicCatalogue

NOW = 1_790_000_000_000
QUERY = Query(id="q-1", text="What is due?", asked_at=NOW)


def _record(value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
    return Record(
        topic="twinloop.queries",
        partition=3,
        offset=17,
        key=None,
        value=value,
        headers=headers,
        timestamp_ms=NOW,
    )


def test_an_event_comes_back_as_it_went() -> None:
    value, headers = encode(QUERY, source="client/test", event_id="q-1", at_ms=NOW)
    assert decode(_record(value, headers), Query) == QUERY
    assert dict(headers)["ce_time"] == b"2026-09-21T14:13:20.000Z"
    assert dict(headers)["ce_type"] == b"twinloop.query.v1"


def test_a_record_without_headers_is_taken_for_the_topics_event() -> None:
    assert decode(_record(QUERY.model_dump_json().encode()), Query) == QUERY


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (None, (), "no value"),
        (b"{", (), "not a twinloop.query.v1"),
        (b"\xff\xfe", (), "not a twinloop.query.v1"),
        (b'{"id": "q"}', (), "text: Field required"),
        (QUERY.model_dump_json().encode(), (("ce_type", b"twinloop.query.v2"),), "ce_type is"),
    ],
)
def test_a_bad_record_is_refused_with_its_place(value: bytes | None, headers: tuple[()], reason: str) -> None:
    with pytest.raises(InvalidEvent, match=r"twinloop\.queries\[3\]@17") as refused:
        decode(_record(value, headers), Query)
    assert reason in str(refused.value)


def test_the_reason_never_quotes_what_a_user_wrote() -> None:
    with pytest.raises(InvalidEvent) as refused:
        decode(_record(b'{"id": "q", "text": 5, "secret words": 1, "asked_at": "my secret"}'), Query)
    assert "my secret" not in str(refused.value)


def test_another_type_is_refused() -> None:
    value, headers = encode(QUERY, source="client/test", event_id="q-1", at_ms=NOW)
    with pytest.raises(InvalidEvent, match="expected"):
        decode(_record(value, headers), Readiness)


def test_canonical_json_is_one_spelling_of_a_value() -> None:
    assert canonical_json({"b": 1, "a": [1, 2.5, None, "é"]}) == '{"a":[1,2.5,null,"é"],"b":1}'.encode()
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(QUERY) == digest_of(QUERY.model_dump(mode="json"))


def test_topics_that_follow_the_origin_have_its_partitions() -> None:
    catalogue = TopicCatalogue.load(prefix="acme.", origin_partitions=12)
    partitions = {spec.name: spec.partitions for spec in catalogue.specs()}
    for topic in ("queries", "queries.blue", "queries.green", "assignments", "outcomes", "seen-ids"):
        assert partitions[f"acme.{topic}"] == 12
    for topic in ("decisions", "gate-inputs", "commands", "readiness", "releases"):
        assert partitions[f"acme.{topic}"] == 1


def test_the_decision_log_is_kept_for_ever_and_never_compacted() -> None:
    configs = {spec.name: spec.config for spec in TopicCatalogue.load().specs()}
    for topic in ("twinloop.decisions", "twinloop.gate-inputs"):
        assert configs[topic]["retention.ms"] == "-1"
        assert configs[topic]["cleanup.policy"] == "delete"
    assert configs["twinloop.seen-ids"]["cleanup.policy"] == "compact,delete"


def test_an_undeclared_topic_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="not declared"):
        TopicCatalogue.load().name("gossip")


def test_a_bad_declaration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "topics.yaml"
    path.write_text(DECLARATIONS.read_text().replace("cleanup: compact", "cleanup: never", 1))
    with pytest.raises(ConfigError, match=r"topics\.yaml"):
        TopicCatalogue.load(path=path)
