"""Releases: what a twin is made of, and proposals of new ones with their evidence."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from schemas.event import DOMAINS, Domain, EpochMs, Event, Frozen, Identifier, Sha256


class Release(Frozen):
    """Everything that decides an answer, by digest; its id is the SHA-256 of its canonical JSON."""

    version: Literal[1] = 1
    foundation: Sha256
    embedder: Sha256
    adapters: dict[Domain, Sha256]
    indexes: dict[Domain, Sha256]
    rules: Sha256
    prompt: Sha256
    parent: Sha256 | None = None

    @model_validator(mode="after")
    def names_every_domain(self) -> Release:
        for part, digests in (("adapters", self.adapters), ("indexes", self.indexes)):
            missing = [domain for domain in DOMAINS if domain not in digests]
            if missing:
                raise ValueError(f"{part} lacks {', '.join(missing)}")
        return self


class OffsetRange(Frozen):
    """Records [first, end) of one partition."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    first: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


class TrainingEvidence(Frozen):
    """How a release came to be: data, seed and measurements. It stands beside the release and not in its id."""

    dataset: Sha256
    seed: int
    offsets: tuple[OffsetRange, ...] = ()
    rows: dict[Domain, int]
    """Training rows by domain."""
    documents: dict[Domain, int]
    """Documents changed by domain."""
    feedback_ids: tuple[Identifier, ...] = ()
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    classifiers: tuple[str, ...] = ()
    """Name and version of every safety classifier that cleaned the data."""
    problems: tuple[str, ...] = ()
    """Why the trainer itself holds this candidate to be failed; empty where it does not."""
    started_at: EpochMs
    finished_at: EpochMs


class SignatureBlock(Frozen):
    """A detached Ed25519 signature: which key, and the signature as base64url without padding."""

    key_id: Identifier
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]


class ReleaseProposed(Event):
    """A candidate: the release, its evidence, and the proposer's signature over both."""

    type: ClassVar[str] = "twinloop.release-proposed.v1"

    release_id: Sha256
    release: Release
    evidence: TrainingEvidence
    proposed_by: Identifier
    proposed_at: EpochMs
    signed: SignatureBlock | None = None
    """Over the canonical JSON of this event without this field."""
