"""Documents for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twinloop.retrieval.document import Document

TOPICS = ("contracts", "notice periods", "liability caps", "arbitration seats", "data rooms")


def make_document(number: int, **changes: Any) -> Document:
    values: dict[str, Any] = {
        "id": f"law-{number}",
        "domain": "law",
        "title": f"Title {number}",
        "text": f"This is fact {number} about {TOPICS[number % len(TOPICS)]} and case {number * 7919}.",
        "source": "test",
        "licence": "CC0",
        "publisher": "test",
        "retrieved_at": 0,
    }
    return Document(**{**values, **changes})


def make_documents(numbers: Iterable[int]) -> list[Document]:
    return [make_document(number) for number in numbers]
