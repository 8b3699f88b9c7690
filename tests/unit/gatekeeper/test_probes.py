"""Probes are read strictly, and a result is graded by what it says and cites."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.answers import AnswerError, Citation, Evaluation
from services.gatekeeper.core.probes import ProbeSet, answer_of, parse_query_id, query_id
from tests.histories.script import GOOD, START_MS
from twinloop.errors import ConfigError

LINES = b"""
{"id": "law-1", "domain": "law", "question": "What is the fine?", "needs_citation": true, "expect": "675 Dollars"}
{"id": "gen-1", "question": "Say a year", "expect_pattern": "\\\\b(19|20)[0-9]{2}\\\\b"}
{"id": "gen-2", "question": "Say anything"}
"""
PROBES = ProbeSet.read(LINES, name="probes")
RUN = "qa-01234567-2"


def said(probe: str, text: str | None, *cited: bool, error: bool = False) -> Evaluation:
    return Evaluation(
        query_id=query_id(RUN, "candidate", probe),
        answered_at=START_MS,
        text=text,
        citations=tuple(Citation(document_id="d", retrieved=retrieved) for retrieved in cited),
        error=AnswerError(kind="model", detail="") if error else None,
        release=GOOD,
        purpose="qa",
    )


@pytest.mark.parametrize(
    ("probe", "text", "as_expected"),
    [
        ("law-1", "The fine is  675 dollars.", True),
        ("law-1", "The fine is 67 dollars.", False),
        ("law-1", None, False),
        ("gen-1", "It was 1999 then", True),
        ("gen-1", "It was 19999 then", False),
        ("gen-2", "whatever", None),
    ],
)
def test_an_answer_is_graded_by_what_it_says(probe: str, text: str | None, as_expected: bool | None) -> None:
    found = answer_of(said(probe, text, True), PROBES)
    assert found is not None
    assert found.as_expected is as_expected


@pytest.mark.parametrize(("cited", "cites"), [((True,), True), ((True, False), False), ((), False)])
def test_every_citation_must_be_among_the_retrieved(cited: tuple[bool, ...], cites: bool) -> None:
    found = answer_of(said("law-1", "675 dollars", *cited), PROBES)
    assert found is not None
    assert found.cites is cites


def test_other_evaluations_are_no_results() -> None:
    assert answer_of(said("unknown", "x"), PROBES) is None
    mirrored = said("law-1", "x").model_copy(update={"purpose": "mirror"})
    assert answer_of(mirrored, PROBES) is None


def test_a_query_id_tells_run_side_and_probe() -> None:
    for side in ("candidate", "active"):
        assert parse_query_id(query_id(RUN, side, "law-1")) == (RUN, side, "law-1")  # type: ignore[arg-type]
    assert parse_query_id("q-17") is None


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b'{"id": "a", "question": "x", "domain": "art"}', "domain"),
        (b'{"id": "a", "question": "x", "expects": "y"}', "expects"),
        (b'{"id": "a", "question": "x", "expect_pattern": "("}', "regular expression"),
        (b'{"id": "a"}', "question"),
        (b'{"id": "a", "question": "x"}\n{"id": "a", "question": "y"}', ":2: probe a is there twice"),
        (b"\n", "holds no probe"),
    ],
)
def test_a_faulty_file_is_refused_with_line_and_reason(line: bytes, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("(", r"\(")):
        ProbeSet.read(line, name="probes.jsonl")


def test_the_shipped_probes_suffice_for_the_shipped_policy() -> None:
    data = Path("configs/qa/probes.jsonl").read_bytes()
    assert len(ProbeSet.read(data, name="configs/qa/probes.jsonl").probes) >= 200
