"""What feeds the retrieval indexes: documents with provenance, upserted or deleted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.event import Domain, EpochMs, Event, Frozen, Identifier

Text500 = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Provenance(Frozen):
    """Where a document comes from and under which terms it may be used."""

    source: Text500
    """A title, an address or a data set's name and row."""
    licence: Text500
    """The terms, as its publisher names them."""
    publisher: Text500
    """Who published it."""
    retrieved_at: EpochMs
    """When it was fetched from there."""


class DocumentChange(Event):
    """One document put into a domain's index or taken out of it; the last change of an id holds."""

    type: ClassVar[str] = "twinloop.document.v1"

    op: Literal["upsert", "delete"]
    document_id: Identifier
    """What citations name; one id is one document of its domain."""
    domain: Domain
    """The index it belongs to."""
    changed_at: EpochMs
    """When its owner changed it."""
    title: Annotated[str, StringConstraints(max_length=500)] = ""
    text: Annotated[str, StringConstraints(max_length=20_000)] = ""
    """The passage that is embedded and shown to the model, title first; an upsert needs it."""
    provenance: Provenance | None = None
    """Where it comes from; an upsert needs it."""
    access: Annotated[tuple[Identifier, ...], Field(max_length=32)] = ("public",)
    """Labels a reader must hold; `public` is for everybody."""

    @model_validator(mode="after")
    def upserts_are_whole(self) -> DocumentChange:
        if self.op == "upsert" and not self.text:
            raise ValueError("an upsert needs text")
        if self.op == "upsert" and self.provenance is None:
            raise ValueError("an upsert needs provenance: source, licence, publisher, retrieved_at")
        return self
