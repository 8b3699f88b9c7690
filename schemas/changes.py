"""Changes of what travels in a release without being trained: router rules and prompt, proposed as JSON Patches."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from schemas.event import Domain, EpochMs, Event, Frozen, Identifier, Sha256

Pointer = Annotated[str, StringConstraints(pattern=r"^(/([^~/]|~[01])*)+$", max_length=400)]
"""A JSON Pointer (RFC 6901) into a document that holds `rules` and `prompt`."""

Whole = Annotated[int, Field(strict=True, ge=-(2**53), le=2**53)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(strict=True, max_length=4000)]
Scalar = Annotated[bool, Field(strict=True)] | Whole | Real | Text | None
"""What stands at the end of a path; a patch changes single values and never a whole branch."""

Signature = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]{86})?$")]
Words = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Via = Literal["cli", "api", "trainer"]

MAX_OPERATIONS = 200


class PatchOperation(Frozen):
    """One step of a JSON Patch (RFC 6902); `move` and `copy` are written as a removal and an addition."""

    op: Literal["add", "replace", "remove", "test"]
    path: Pointer
    value: Scalar = None
    """Not looked at by `remove`."""


class ReleaseDocuments(Frozen):
    """Digests of the documents a change is made on, or leads to."""

    rules: Sha256
    prompt: Sha256


class ChangeProposed(Event):
    """A change somebody wants; signed, and worth nothing until another person has approved it."""

    type: ClassVar[str] = "twinloop.change-proposed.v1"

    id: Identifier
    """Unique for ever; a second proposal of the same id is refused."""
    author: Identifier
    base: ReleaseDocuments
    """What the patch was written for; it is refused where the active release holds other documents."""
    patch: Annotated[tuple[PatchOperation, ...], Field(min_length=1, max_length=MAX_OPERATIONS)]
    reason: Words
    via: Via
    proposed_at: EpochMs
    key_id: Identifier
    signature: Signature = ""
    """Ed25519 over the canonical JSON without this field."""


class ChangeReviewed(Event):
    """What another person says about a proposed change; signed."""

    type: ClassVar[str] = "twinloop.change-reviewed.v1"

    nonce: Identifier
    """Unique for ever; the audit entry about this review ends with it."""
    change: Identifier
    proposal: Sha256
    """Of the signed proposal's canonical JSON: the very patch that was looked at."""
    verdict: Literal["approve", "reject"]
    reviewer: Identifier
    reason: Words
    via: Via
    reviewed_at: EpochMs
    key_id: Identifier
    signature: Signature = ""
    """Ed25519 over the canonical JSON without this field."""


class DomainMove(Frozen):
    """How many recorded queries would go from one domain to another."""

    before: Domain
    after: Domain
    queries: Annotated[int, Field(ge=1)]


class MovedQuery(Frozen):
    """A recorded query, or a probe, that would go to another domain; never its text."""

    id: Identifier
    before: Domain
    after: Domain


class RouteReport(Frozen):
    """A change replayed over recorded queries and the questions of the examination."""

    queries: Annotated[int, Field(ge=0)]
    """Recorded queries that the rules were asked about."""
    fixed: Annotated[int, Field(ge=0)]
    """Recorded queries whose producer fixed the domain: no rule is asked about them."""
    moved: Annotated[int, Field(ge=0)]
    moves: tuple[DomainMove, ...] = ()
    examples: tuple[MovedQuery, ...] = ()
    probes: Annotated[int, Field(ge=0)]
    """Probes of the examination."""
    probes_right_before: Annotated[int, Field(ge=0)]
    """Probes that the rules in force would send to the domain the probe names."""
    probes_right_after: Annotated[int, Field(ge=0)]
    moved_probes: tuple[MovedQuery, ...] = ()
    unfixed_moved: Annotated[int, Field(ge=0)] = 0
    """Of the moved probes those that name no domain: their answers come from another adapter and index."""
    prompt_changed: bool = False
    """Every answer may differ: only the examination itself can tell."""


ChangeStage = Literal[
    "open", "refused", "stale", "rejected", "approved", "candidate", "promoted", "failed", "ended", "undone"
]
RefusalCode = Literal[
    "signature",
    "repeated",
    "too-many",
    "stale",
    "path",
    "author",
    "bounds",
    "not-applicable",
    "invalid",
    "no-change",
]


class ChangeStatus(Event):
    """What became of a proposed change; the last one holds."""

    type: ClassVar[str] = "twinloop.change-status.v1"

    change: Identifier
    stage: ChangeStage
    """`open`: sound, waits for another person; `refused`: not sound; `stale`: the documents changed meanwhile;
    `candidate`: its release is being judged; `ended`: that ended without a verdict; `undone`: it served and was
    rolled back."""
    code: RefusalCode | None = None
    """Why it was refused, for programs."""
    detail: Annotated[str, StringConstraints(max_length=1000)] = ""
    automatic: bool = False
    """Proposed by a program, which may do less than a person."""
    documents: ReleaseDocuments | None = None
    """What the change leads to."""
    report: RouteReport | None = None
    approved_by: Identifier | None = None
    release: Sha256 | None = None
    """The release it became."""
    at: EpochMs
