"""JSON Lines of this project's own form: id, domain, question, answer, context, title, source, licence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twinloop.importing.json_files import json_lines
from twinloop.importing.rows import Refused, Row, Terms, text_of


def read_jsonl(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    """One row a line; `license` is read as `licence`; what a row lacks comes from `terms`."""
    for number, raw in json_lines(path):
        if isinstance(raw, Refused):
            yield raw
            continue
        yield Row(
            path=path,
            line=number,
            id=text_of(raw, "id"),
            domain=text_of(raw, "domain") or terms.domain,
            question=text_of(raw, "question"),
            answer=text_of(raw, "answer"),
            context=text_of(raw, "context"),
            title=text_of(raw, "title"),
            source=text_of(raw, "source") or terms.source,
            licence=text_of(raw, "licence") or text_of(raw, "license") or terms.licence,
            publisher=text_of(raw, "publisher") or terms.publisher,
        )
