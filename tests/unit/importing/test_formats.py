"""Each publisher's file format, on rows written by hand in that form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twinloop.errors import ConfigError
from twinloop.importing.importer import READERS, Imported, change_of, import_files
from twinloop.importing.rows import Terms

TERMS = Terms(retrieved_at=1_700_000_000_000, licence="CC BY 4.0", publisher="the publisher")


def imported(path: Path, kind: str, terms: Terms = TERMS) -> Imported:
    return import_files([path], kind=kind, terms=terms)


def test_legalbench_takes_its_question_from_the_prompt_beside_the_rows(tmp_path: Path) -> None:
    task = tmp_path / "contract_nli_notice"
    task.mkdir()
    (task / "base_prompt.txt").write_text("Identify if the clause\nneeds notice.\n\nClause: {{text}}\nLabel:")
    (task / "train.tsv").write_text(
        'index\tanswer\ttext\tdocument_name\n0\tYes\t"Notice is ""due"" in 30 days."\tnda.pdf\n1\tNo\tNone.\tnda.pdf\n'
    )
    found = imported(tmp_path, "legalbench")
    assert [(pair.id, pair.question, pair.answer) for pair in found.pairs] == [
        ("law-contract_nli_notice-train-0", "Identify if the clause needs notice.", "Yes"),
        ("law-contract_nli_notice-train-1", "Identify if the clause needs notice.", "No"),
    ]
    assert found.documents[0].text == 'Notice is "due" in 30 days.'
    assert found.documents[0].title == "nda.pdf"
    assert found.documents[0].source == "LegalBench/contract_nli_notice"
    assert found.pairs[0].document_id == found.documents[0].id


def test_legalbench_takes_a_question_column_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("index\tquestion\tcontract\tanswer\n7\tIs it due?\tIt is due.\tYes\n")
    assert imported(tmp_path / "test.tsv", "legalbench").pairs[0].question == "Is it due?"


@pytest.mark.parametrize("prompt", [None, "", "{{text}}\n\nLabel:"])
def test_legalbench_without_any_question_is_refused(tmp_path: Path, prompt: str | None) -> None:
    (tmp_path / "train.tsv").write_text("index\tanswer\ttext\n0\tYes\tx\n")
    if prompt is not None:
        (tmp_path / "base_prompt.txt").write_text(prompt)
    with pytest.raises(ConfigError, match=r"base_prompt\.txt"):
        imported(tmp_path, "legalbench")


def test_legalbench_without_an_answer_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ConfigError, match=r"train\.tsv:1: no column `answer`"):
        imported(tmp_path, "legalbench")


def test_medqa_appends_the_options_to_the_question(tmp_path: Path) -> None:
    rows = [
        {
            "question": "Which drug?",
            "answer": "Aspirin",
            "options": {"A": "Aspirin", "B": "Water"},
            "meta_info": "step1",
        },
        {"question": "Which?", "options": {"A": "Yes", "B": "No"}, "answer_idx": "B"},
        {"question": "Which?", "answer": "No", "options": ["Yes", "No"]},
    ]
    path = tmp_path / "dev.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    pairs = imported(path, "medqa").pairs
    assert pairs[0].question == "Which drug?\n- Aspirin\n- Water"
    assert [pair.answer for pair in pairs] == ["Aspirin", "No", "No"]
    assert pairs[0].document_id is None


MEDQUAD = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0000001" source="CDC" url="http://www.cdc.gov/x/">
<Focus>Flu</Focus><FocusAnnotations/>
<QAPairs>
<QAPair pid="1"><Question qid="0000001-1" qtype="information">What is (are) Flu ?</Question>
<Answer>Flu is an illness.  It spreads.</Answer></QAPair>
<QAPair pid="2"><Question qid="0000001-2" qtype="treatment">How is it treated?</Question><Answer/></QAPair>
</QAPairs></Document>"""


def test_medquad_reads_pages_and_refuses_answers_that_were_left_out(tmp_path: Path) -> None:
    (tmp_path / "0000001.xml").write_text(MEDQUAD)
    found = imported(tmp_path, "medquad")
    assert [(pair.id, pair.answer) for pair in found.pairs] == [("med-0000001-1", "Flu is an illness.")]
    assert found.documents[0].text == "Flu is an illness. It spreads."
    assert (found.documents[0].title, found.documents[0].source) == ("Flu", "http://www.cdc.gov/x/")
    assert [str(row) for row in found.refused] == [
        f"{tmp_path}/0000001.xml:2: the question-answer pair has no question or no answer"
    ]


HOSTILE_XML = [
    '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><Document>&b;</Document>',
    '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><Document><Focus>&x;</Focus></Document>',
    '<!DOCTYPE d SYSTEM "http://127.0.0.1:9/d.dtd"><Document/>',
    "<!DOCTYPE Document><Document/>",
]


@pytest.mark.parametrize("text", HOSTILE_XML)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_declaration_is_refused(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "page.xml"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ConfigError, match=r"page\.xml:1: a document type declaration is refused"):
        imported(path, "medquad")


@pytest.mark.parametrize("text", ["", "<Document>", "no xml", "<Document>&undefined;</Document>"])
def test_broken_xml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.xml").write_text(text)
    with pytest.raises(ConfigError, match=r"page\.xml"):
        imported(tmp_path, "medquad")


def test_finqa_joins_text_table_and_text(tmp_path: Path) -> None:
    rows = [
        {
            "id": "ADI/2009/page_49.pdf-1",
            "filename": "ADI/2009/page_49.pdf",
            "pre_text": ["Interest was low.", "."],
            "table": [["", "2009", "2008"], ["cash", "$ 5", "$ 4"]],
            "post_text": ["Thus it fell."],
            "qa": {"question": "what is cash in 2009?", "answer": "", "exe_ans": 5, "program": "none"},
        },
        {"id": "no qa"},
    ]
    (tmp_path / "dev.json").write_text(json.dumps(rows))
    found = imported(tmp_path / "dev.json", "finqa")
    assert [(pair.question, pair.answer) for pair in found.pairs] == [("what is cash in 2009?", "5")]
    assert "cash | $ 5 | $ 4" in found.documents[0].text
    assert [row.reason for row in found.refused] == ["no object `qa`"]


def test_tatqa_takes_the_related_paragraphs(tmp_path: Path) -> None:
    question = {
        "uid": "q1",
        "order": 1,
        "question": "Which method?",
        "answer": ["modified"],
        "answer_from": "text",
    }
    table_question = {"uid": "q2", "order": 2, "question": "How much?", "answer": 3.5, "scale": "million"}
    rows = [
        {
            "table": {"uid": "abcdef0123", "table": [["", "2019"], ["Sales", "3.5"]]},
            "paragraphs": [
                {"uid": "p1", "order": 1, "text": "Other."},
                {"uid": "p2", "order": 2, "text": "modified it."},
            ],
            "questions": [{**question, "rel_paragraphs": ["2"]}, {**table_question, "answer_from": "table"}],
        }
    ]
    (tmp_path / "tatqa.json").write_text(json.dumps(rows))
    found = imported(tmp_path / "tatqa.json", "tatqa")
    assert [(pair.id, pair.answer) for pair in found.pairs] == [
        ("fin-q1", "modified"),
        ("fin-q2", "3.5 million"),
    ]
    assert found.documents[0].text == "modified it."
    assert "Sales | 3.5" in found.documents[1].text


@pytest.mark.parametrize("kind", sorted(READERS))
def test_a_file_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        imported(tmp_path / "nowhere", kind)


@pytest.mark.parametrize("kind", ["finqa", "tatqa"])
def test_json_that_is_no_list_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_text('[\n{"a": }]')
    with pytest.raises(ConfigError, match=r"x\.json:2: not JSON"):
        imported(path, kind)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="expected a JSON list, found dict"):
        imported(path, kind)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use finqa, jsonl, legalbench"):
        imported(tmp_path, "parquet")


def test_a_document_becomes_the_event_that_publishes_it(tmp_path: Path) -> None:
    (tmp_path / "0000001.xml").write_text(MEDQUAD)
    document = imported(tmp_path, "medquad").documents[0]
    change = change_of(document, changed_at=5)
    assert type(document).from_change(change) == document
