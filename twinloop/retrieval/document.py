"""A passage that may be retrieved and cited, with where it comes from and who may see it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from dataclasses import dataclass

from schemas.documents import DocumentChange
from schemas.event import DOMAINS
from twinloop.canonical import canonical_json
from twinloop.errors import InvalidEvent

PUBLIC = "public"


@dataclass(frozen=True)
class Document:
    """One passage of one domain; raises InvalidEvent where a field that must be filled is empty."""

    id: str
    domain: str
    title: str
    text: str
    source: str
    licence: str
    publisher: str
    retrieved_at: int
    """Milliseconds since 1970-01-01 UTC."""
    access: tuple[str, ...] = (PUBLIC,)
    """Labels a reader must hold, all of them; `public` among them opens it to everybody."""

    def __post_init__(self) -> None:
        empty = [name for name in ("id", "text", "source", "licence", "access") if not getattr(self, name)]
        if empty:
            raise InvalidEvent(f"document {self.id!r} has no {', '.join(empty)}")
        if self.domain not in DOMAINS:
            raise InvalidEvent(
                f"document {self.id!r}: domain {self.domain!r} is not one of {', '.join(DOMAINS)}"
            )

    @classmethod
    def from_change(cls, change: DocumentChange) -> Document:
        """The document an upsert carries; raises InvalidEvent for a delete."""
        if change.op != "upsert" or change.provenance is None:
            raise InvalidEvent(f"document change {change.document_id!r} is no upsert")
        return cls(
            id=change.document_id,
            domain=change.domain,
            title=change.title,
            text=change.text,
            source=change.provenance.source,
            licence=change.provenance.licence,
            publisher=change.provenance.publisher,
            retrieved_at=change.provenance.retrieved_at,
            access=change.access,
        )

    def is_visible_to(self, held: Collection[str]) -> bool:
        """True where a reader holding these labels may see it."""
        return PUBLIC in self.access or all(label in held for label in self.access)

    def searchable_text(self) -> str:
        """What is embedded: title, then text."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    def to_line(self) -> bytes:
        """Canonical JSON without a line break."""
        return canonical_json(dataclasses.asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> Document:
        """The document of one line; raises ValueError where it is not one."""
        try:
            raw = json.loads(line)
            document = cls(**{**raw, "access": tuple(raw["access"])})
        except (TypeError, KeyError, RecursionError, InvalidEvent) as error:
            raise ValueError(str(error)) from error
        texts = (document.id, document.title, document.text, document.source, document.licence)
        if not all(isinstance(text, str) for text in (*texts, document.publisher, *document.access)):
            raise ValueError(f"document {document.id!r}: a field that must be text is not")
        return document
