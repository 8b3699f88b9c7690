"""Proposals and reviews as the command line and the API make them alike: signed, and recorded under the change's id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from schemas.changes import (
    ChangeProposed,
    ChangeReviewed,
    PatchOperation,
    ReleaseDocuments,
    Via,
)
from twinloop.bus.records import Outgoing
from twinloop.canonical import digest_of
from twinloop.codec import encode
from twinloop.signing import Signer, sign_document
from twinloop.topics import TopicCatalogue

TOPIC = "changes"


def signed_proposal(
    signer: Signer,
    patch: Sequence[PatchOperation],
    *,
    change: str,
    author: str,
    base: ReleaseDocuments,
    reason: str,
    via: Via,
    now_ms: int,
) -> ChangeProposed:
    """A change that `author` wants, signed."""
    proposal = ChangeProposed(
        id=change,
        author=author,
        base=base,
        patch=tuple(patch),
        reason=reason,
        via=via,
        proposed_at=now_ms,
        key_id=signer.key_id,
    )
    return sign_document(proposal, signer)


def signed_review(
    signer: Signer,
    proposal: ChangeProposed,
    verdict: Literal["approve", "reject"],
    *,
    nonce: str,
    reviewer: str,
    reason: str,
    via: Via,
    now_ms: int,
) -> ChangeReviewed:
    """What `reviewer` says about that very proposal, signed."""
    review = ChangeReviewed(
        nonce=nonce,
        change=proposal.id,
        proposal=digest_of(proposal),
        verdict=verdict,
        reviewer=reviewer,
        reason=reason,
        via=via,
        reviewed_at=now_ms,
        key_id=signer.key_id,
    )
    return sign_document(review, signer)


def change_record(event: ChangeProposed | ChangeReviewed, topics: TopicCatalogue, *, source: str) -> Outgoing:
    """The record that says it; all about one change stands in one partition, in order."""
    if isinstance(event, ChangeProposed):
        change, name, at = event.id, event.id, event.proposed_at
    else:
        change, name, at = event.change, event.nonce, event.reviewed_at
    value, head = encode(event, source=source, event_id=name, at_ms=at)
    return Outgoing(topics.name(TOPIC), value, key=change.encode(), headers=head, partition=0)
