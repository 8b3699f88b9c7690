"""MedQA (JSON Lines with options) and MedQuAD (one XML file a page).

Sources of the formats: Jin et al. 2020, https://github.com/jind11/MedQA; Ben Abacha and Demner-Fushman 2019,
https://github.com/abachaa/MedQuAD
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from twinloop.errors import ConfigError
from twinloop.importing.json_files import json_lines
from twinloop.importing.rows import Refused, Row, Terms, text_of

_MAX_XML_BYTES = 16 << 20
_FIRST_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)


def read_medqa(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    """Rows of a `*.jsonl` file: the options are appended to the question, the answer is the right option's text."""
    for number, raw in json_lines(path):
        if isinstance(raw, Refused):
            yield raw
            continue
        options = raw.get("options")
        listed = (
            list(options.values())
            if isinstance(options, dict)
            else options
            if isinstance(options, list)
            else []
        )
        answer = text_of(raw, "answer")
        if not answer and isinstance(options, dict):
            answer = text_of(options, text_of(raw, "answer_idx"))
        choices = "".join(f"\n- {option}" for option in listed)
        question = text_of(raw, "question")
        yield Row(
            path=path,
            line=number,
            id=f"med-medqa-{path.stem}-{number}",
            domain="med",
            question=f"{question}{choices}" if question else "",
            answer=answer,
            context="",
            title=text_of(raw, "meta_info"),
            source=terms.source or f"MedQA/{path.stem}",
            licence=terms.licence,
            publisher=terms.publisher,
        )


def read_medquad(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    """Rows of one page, or of every `*.xml` below a folder: the whole answer is the context, its first sentence the
    answer. Pages whose answers the publisher had to leave out are refused one by one.
    """
    files = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: no *.xml below this folder")
    for file in files:
        yield from _read_page(file, terms)


def _read_page(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    page = parse_xml(path)
    title = (page.findtext("Focus") or "").strip()
    for number, pair in enumerate(page.iter("QAPair"), start=1):
        question, answer = pair.find("Question"), " ".join((pair.findtext("Answer") or "").split())
        if question is None or not answer:
            yield Refused(path, number, "the question-answer pair has no question or no answer")
            continue
        sentence = _FIRST_SENTENCE.match(answer)
        yield Row(
            path=path,
            line=number,
            id=f"med-{question.get('qid') or f'{path.stem}-{number}'}",
            domain="med",
            question=" ".join((question.text or "").split()),
            answer=sentence.group() if sentence else answer,
            context=answer,
            title=title,
            source=page.get("url") or terms.source,
            licence=terms.licence,
            publisher=terms.publisher or page.get("source", ""),
        )


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file without document type (no entities, so no expansion and no file access).

    Raises ConfigError naming file and line where it is malformed, too large or declares a document type.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if len(data) > _MAX_XML_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_XML_BYTES} bytes")

    def refuse(*_: object) -> None:
        raise ConfigError(f"{path}:{scanner.CurrentLineNumber}: a document type declaration is refused")

    scanner = expat.ParserCreate()
    scanner.StartDoctypeDeclHandler = refuse
    try:
        scanner.Parse(data, True)
        return ElementTree.fromstring(data)
    except expat.ExpatError as error:
        raise ConfigError(f"{path}:{error.lineno}: not XML: {error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ConfigError(f"{path}: not XML: {error}") from error
