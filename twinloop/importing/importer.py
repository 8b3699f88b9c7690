"""From published rows to documents and question-answer pairs; what lacks a source or a licence is refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from schemas.documents import DocumentChange, Provenance
from schemas.event import DOMAINS
from twinloop.errors import ConfigError
from twinloop.importing.finance_sets import read_finqa, read_tatqa
from twinloop.importing.jsonl_rows import read_jsonl
from twinloop.importing.legal_sets import read_legalbench
from twinloop.importing.medical_sets import read_medqa, read_medquad
from twinloop.importing.passages import split_passages
from twinloop.importing.rows import Reader, Refused, Row, Terms
from twinloop.retrieval.document import Document

READERS: dict[str, Reader] = {
    "jsonl": read_jsonl,
    "legalbench": read_legalbench,
    "medqa": read_medqa,
    "medquad": read_medquad,
    "finqa": read_finqa,
    "tatqa": read_tatqa,
}
# The limit of `DocumentChange.text`.
_MAX_PASSAGE_CHARACTERS = 20_000
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


@dataclass(frozen=True)
class QuestionAnswer:
    """A question with its published answer and the passage that holds it, where there is one."""

    id: str
    domain: str
    question: str
    answer: str
    document_id: str | None
    source: str
    licence: str


@dataclass(frozen=True)
class Imported:
    """What an import gives: distinct documents, pairs in the order of the files, and every row not taken."""

    documents: tuple[Document, ...]
    pairs: tuple[QuestionAnswer, ...]
    refused: tuple[Refused, ...]


def import_files(paths: Iterable[Path], *, kind: str, terms: Terms, max_words: int = 160) -> Imported:
    """Read `paths` with the reader called `kind`.

    Equal passages of a domain become one document, named by its content, so that importing again changes nothing.
    Raises ConfigError for an unknown kind and for a file that cannot be read at all.
    """
    reader = READERS.get(kind)
    if reader is None:
        raise ConfigError(f"import format {kind!r} is unknown: use {', '.join(sorted(READERS))}")
    documents: dict[str, Document] = {}
    pairs: dict[str, QuestionAnswer] = {}
    refused: list[Refused] = []
    for path in paths:
        for row in reader(path, terms):
            if isinstance(row, Row):
                problem = _problem(row, known=pairs, max_words=max_words)
                if problem is None:
                    pairs[row.id] = _taken(row, documents, terms=terms, max_words=max_words)
                    continue
                row = Refused(row.path, row.line, problem)
            refused.append(row)
    return Imported(tuple(documents.values()), tuple(pairs.values()), tuple(refused))


def change_of(document: Document, *, changed_at: int) -> DocumentChange:
    """The upsert event that publishes a document."""
    return DocumentChange(
        op="upsert",
        document_id=document.id,
        domain=document.domain,
        changed_at=changed_at,
        title=document.title,
        text=document.text,
        provenance=Provenance(
            source=document.source,
            licence=document.licence,
            publisher=document.publisher,
            retrieved_at=document.retrieved_at,
        ),
        access=document.access,
    )


def _problem(row: Row, *, known: dict[str, QuestionAnswer], max_words: int) -> str | None:
    """Why a row cannot be taken, or None."""
    missing = [name for name in ("question", "answer", "source", "licence") if not getattr(row, name)]
    if missing:
        return f"row {row.id or '?'} has no {', '.join(missing)}"
    if row.domain not in DOMAINS:
        return f"row {row.id}: domain {row.domain!r} is not one of {', '.join(DOMAINS)}"
    if _IDENTIFIER.fullmatch(row.id) is None:
        return (
            f"row id {row.id[:80]!r} is no identifier (letters, digits, '.', '_', ':', '@', '-'; at most 128)"
        )
    if row.id in known:
        return f"row id {row.id} was already read"
    for name, limit in (("title", 500), ("source", 500), ("licence", 500), ("publisher", 500)):
        if len(getattr(row, name)) > limit:
            return f"row {row.id}: {name} is longer than {limit} characters"
    if any(
        len(passage) > _MAX_PASSAGE_CHARACTERS for passage in split_passages(row.context, max_words=max_words)
    ):
        return f"row {row.id}: a passage is longer than {_MAX_PASSAGE_CHARACTERS} characters"
    return None


def _taken(row: Row, documents: dict[str, Document], *, terms: Terms, max_words: int) -> QuestionAnswer:
    passages = [
        _document(row, text, terms=terms) for text in split_passages(row.context, max_words=max_words)
    ]
    for document in passages:
        documents.setdefault(document.id, document)
    holding = [document for document in passages if row.answer.lower() in document.text.lower()] or passages
    return QuestionAnswer(
        id=row.id,
        domain=row.domain,
        question=row.question,
        answer=row.answer,
        document_id=holding[0].id if holding else None,
        source=row.source,
        licence=row.licence,
    )


def _document(row: Row, text: str, *, terms: Terms) -> Document:
    content = hashlib.sha256(f"{row.title}\n{text}".encode()).hexdigest()
    return Document(
        id=f"{row.domain}-{content[:16]}",
        domain=row.domain,
        title=row.title,
        text=text,
        source=row.source,
        licence=row.licence,
        publisher=row.publisher or row.source,
        retrieved_at=terms.retrieved_at,
    )
