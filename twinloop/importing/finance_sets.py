"""FinQA and TAT-QA: questions over paragraphs and tables of financial reports, in one JSON list.

Sources of the formats: Chen et al. 2021, https://github.com/czyssrs/FinQA; Zhu et al. 2021,
https://github.com/NExTplusplus/TAT-QA
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinloop.importing.json_files import json_list
from twinloop.importing.rows import Refused, Row, Terms, text_of


def read_finqa(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    """Rows of train.json, dev.json or test.json; text before, table and text after make the context."""
    for number, raw in enumerate(json_list(path), start=1):
        question = raw.get("qa") if isinstance(raw, dict) else None
        if not isinstance(question, dict):
            yield Refused(path, number, "no object `qa`")
            continue
        parts = [
            *_strings(raw.get("pre_text")),
            *_table_lines(raw.get("table")),
            *_strings(raw.get("post_text")),
        ]
        yield Row(
            path=path,
            line=number,
            id=f"fin-finqa-{path.stem}-{number}",
            domain="fin",
            question=text_of(question, "question"),
            answer=text_of(question, "answer") or text_of(question, "exe_ans"),
            context="\n".join(parts),
            title=text_of(raw, "filename"),
            source=terms.source or f"FinQA/{path.stem}",
            licence=terms.licence,
            publisher=terms.publisher,
        )


def read_tatqa(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    """Rows of tatqa_dataset_*.json: a question's related paragraphs where named, else all, and the table."""
    for number, raw in enumerate(json_list(path), start=1):
        questions = raw.get("questions") if isinstance(raw, dict) else None
        if not isinstance(questions, list):
            yield Refused(path, number, "no list `questions`")
            continue
        for question in questions:
            if not isinstance(question, dict):
                yield Refused(path, number, "a question is not an object")
                continue
            yield _tatqa_row(raw, question, path=path, number=number, terms=terms)


def _tatqa_row(
    raw: Mapping[str, Any], question: Mapping[str, Any], *, path: Path, number: int, terms: Terms
) -> Row:
    table = raw.get("table") if isinstance(raw.get("table"), dict) else {}
    uid = text_of(table or {}, "uid")
    from_text = question.get("answer_from") == "text"
    context = [
        *_related_paragraphs(raw, question),
        *([] if from_text else _table_lines((table or {}).get("table"))),
    ]
    return Row(
        path=path,
        line=number,
        id=f"fin-{text_of(question, 'uid') or f'tatqa-{number}-' + text_of(question, 'order')}",
        domain="fin",
        question=text_of(question, "question"),
        answer=_tatqa_answer(question),
        context="\n".join(context),
        title=f"TAT-QA {uid[:8]}".strip(),
        source=terms.source or f"TAT-QA/{path.stem}",
        licence=terms.licence,
        publisher=terms.publisher,
    )


def _related_paragraphs(raw: Mapping[str, Any], question: Mapping[str, Any]) -> list[str]:
    paragraphs = [entry for entry in raw.get("paragraphs") or [] if isinstance(entry, dict)]
    related = {str(order) for order in question.get("rel_paragraphs") or []}
    chosen = [entry for entry in paragraphs if str(entry.get("order")) in related] or paragraphs
    return [text for entry in chosen if (text := text_of(entry, "text"))]


def _tatqa_answer(question: Mapping[str, Any]) -> str:
    answer, scale = question.get("answer"), text_of(question, "scale")
    spans = [str(span) for span in answer] if isinstance(answer, list) else [text_of(question, "answer")]
    text = "; ".join(span for span in spans if span)
    return f"{text} {scale}".strip() if text else ""


def _strings(value: object) -> list[str]:
    return (
        [text.strip() for text in value if isinstance(text, str) and text.strip()]
        if isinstance(value, list)
        else []
    )


def _table_lines(table: object) -> list[str]:
    rows: Sequence[object] = table if isinstance(table, list) else []
    lines = (" | ".join(str(cell) for cell in row).strip(" |") for row in rows if isinstance(row, list))
    return [line for line in lines if line]
