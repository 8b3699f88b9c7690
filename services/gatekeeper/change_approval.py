"""Whether another person approved what a candidate changes of router rules and prompt.

The trainer enforces the review before it composes a release. It is enforced here once more, from the signed documents
themselves, because whoever holds the trainer's key can sign a release with any rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from schemas.changes import ChangeProposed, ChangeReviewed, ReleaseDocuments
from schemas.releases import Release, TrainingEvidence
from twinloop.canonical import digest_of
from twinloop.changes.patching import Documents, patched
from twinloop.changes.refusal import ChangeRefused
from twinloop.errors import ArtifactError, ConfigError, SignatureError
from twinloop.registry.blobs import BlobStore
from twinloop.signing import KeyRing, Role, verify_document

Signed = TypeVar("Signed", bound=BaseModel)
_AUTHORS: tuple[Role, ...] = ("operator", "approver", "trainer")
_CHANGE = "change"
"""Where a candidate's evidence names the signed documents of the change it applies."""


class Unapproved(Exception):
    """The candidate changes rules or prompt and nobody else approved that; the text says what is amiss."""


def check_approval(
    release: Release, parent: Release, evidence: TrainingEvidence, *, store: BlobStore, ring: KeyRing
) -> None:
    """Raise Unapproved unless `release` keeps its parent's rules and prompt, or an approved patch leads to its own.

    Approved means: the store holds a signed proposal and a signed review that the evidence names, the review was
    signed by an approver who is not the author, about that very proposal, and its patch of the parent's documents
    gives the candidate's. Raises Transient where the store is silent.
    """
    before, after = _documents_of(parent), _documents_of(release)
    if before == after:
        return
    changed = " and ".join(
        part for part in ("rules", "prompt") if getattr(before, part) != getattr(after, part)
    )
    try:
        _check_change(before, after, evidence.metrics.get(_CHANGE), store=store, ring=ring)
    except (ArtifactError, ChangeRefused, SignatureError, Unapproved) as error:
        raise Unapproved(
            f"{changed} differ from the parent's without a valid approval: {error}; "
            f"changes are made by `twinloop pr propose`"
        ) from error


def _check_change(
    before: ReleaseDocuments, after: ReleaseDocuments, named: JsonValue, *, store: BlobStore, ring: KeyRing
) -> None:
    if not isinstance(named, Mapping):
        raise Unapproved("the evidence names no change")
    proposal = _signed(named, "proposal", ChangeProposed, store)
    review = _signed(named, "review", ChangeReviewed, store)
    role = next((each for each in _AUTHORS if each in ring.roles_of(proposal.key_id)), _AUTHORS[0])
    verify_document(proposal, ring, role=role)
    verify_document(review, ring, role="approver")
    _check_review(proposal, review, ring)
    if proposal.base != before:
        raise Unapproved(f"{proposal.id} was written for other documents than the parent's")
    if _outcome(proposal, before, store) != after:
        raise Unapproved(f"the approved patch of {proposal.id} leads to other documents than the candidate's")


def _check_review(proposal: ChangeProposed, review: ChangeReviewed, ring: KeyRing) -> None:
    if "trainer" in ring.roles_of(review.key_id):
        raise Unapproved(f"key {review.key_id!r} may act as the trainer: a person has to approve")
    if review.reviewer == proposal.author or review.key_id == proposal.key_id:
        raise Unapproved(
            f"{proposal.author} proposed {proposal.id}: another person with another key has to approve"
        )
    if (review.change, review.proposal) != (proposal.id, digest_of(proposal)):
        raise Unapproved(f"the review of {review.reviewer} is about another change than {proposal.id}")
    if review.verdict != "approve":
        raise Unapproved(f"{review.reviewer} rejected {proposal.id}")


def _outcome(proposal: ChangeProposed, before: ReleaseDocuments, store: BlobStore) -> ReleaseDocuments:
    """Digests of the documents that the patch leads to; one that it leaves alone keeps the name it has."""
    rules, prompt = store.get(before.rules), store.get(before.prompt)
    try:
        base = Documents.read(rules, prompt)
    except ConfigError as error:
        raise Unapproved(f"the parent's documents cannot be read: {error}") from error
    made = patched(base, proposal.patch)
    return ReleaseDocuments(
        rules=before.rules if made.rules == base.rules else made.digests.rules,
        prompt=before.prompt if made.prompt == base.prompt else made.digests.prompt,
    )


def _signed(named: Mapping[str, JsonValue], part: str, kind: type[Signed], store: BlobStore) -> Signed:
    try:
        return kind.model_validate_json(store.get(str(named.get(part))))
    except ValidationError as error:
        raise Unapproved(f"the {part} in the store is malformed") from error
    except ArtifactError as error:
        raise Unapproved(f"the signed {part} is not in the store") from error


def _documents_of(release: Release) -> ReleaseDocuments:
    return ReleaseDocuments(rules=release.rules, prompt=release.prompt)
