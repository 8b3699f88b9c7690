"""Proposed changes as the API takes and tells them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.changes import (
    MAX_OPERATIONS,
    ChangeStage,
    PatchOperation,
    RefusalCode,
    ReleaseDocuments,
    RouteReport,
)
from schemas.event import EpochMs, Identifier, Sha256
from services.api.core.documents import Order, Told, example
from services.api.core.examples import CANDIDATE, PROMPT, RULES
from twinloop.changes.change_log import KnownChange

_STEP = {"op": "add", "path": "/rules/domains/law/keywords/escrow", "value": 2.0}
_CHANGE: dict[str, Any] = {
    "id": "pr-3f2a91c07b5e",
    "author": "olga",
    "automatic": False,
    "reason": "escrow is law",
    "proposed_at": 1_790_000_000_000,
    "base": {"rules": RULES, "prompt": PROMPT},
    "patch": [_STEP],
    "stage": "candidate",
    "code": None,
    "detail": "its release is proposed to the gatekeeper",
    "report": None,
    "documents": None,
    "approved_by": "anna",
    "release": CANDIDATE,
    "reviews": [{"reviewer": "anna", "verdict": "approve", "reason": "report read", "at": 1_790_000_060_000}],
}


class ChangeProposal(Order):
    """A change of the active release's router rules and prompt."""

    model_config = example(reason="escrow is law", patch=[_STEP])

    patch: Annotated[tuple[PatchOperation, ...], Field(min_length=1, max_length=MAX_OPERATIONS)]
    """JSON Patch (RFC 6902) of `{"rules": .., "prompt": ..}`; the trainer's settings say which paths may change."""
    base: ReleaseDocuments | None = None
    """The documents the patch was written for; those of the active release where absent."""


class ChangeReviewView(Told):
    """What somebody said about a change; only the trainer says whether it counts."""

    reviewer: Identifier
    verdict: Literal["approve", "reject"]
    reason: str
    at: EpochMs


class ChangeView(Told):
    """One proposed change and how far it has come."""

    model_config = example(**_CHANGE)

    id: Identifier
    author: Identifier
    automatic: bool
    """Proposed by a program, which may do less than a person."""
    reason: str
    proposed_at: EpochMs
    base: ReleaseDocuments
    patch: tuple[PatchOperation, ...]
    stage: ChangeStage | Literal["unexamined"]
    code: RefusalCode | None
    """Why it was refused, for programs."""
    detail: str
    report: RouteReport | None
    """What the change would move; ids of queries and probes, never their texts."""
    documents: ReleaseDocuments | None
    """What the change leads to."""
    approved_by: Identifier | None
    release: Sha256 | None
    reviews: tuple[ChangeReviewView, ...]


class ChangesView(Told):
    """Proposed changes, newest first."""

    model_config = example(changes=[_CHANGE], total=1)

    changes: tuple[ChangeView, ...]
    total: int


def change_view(known: KnownChange) -> ChangeView:
    proposal, status = known.proposal, known.status
    return ChangeView(
        id=proposal.id,
        author=proposal.author,
        automatic=status.automatic if status else False,
        reason=proposal.reason,
        proposed_at=proposal.proposed_at,
        base=proposal.base,
        patch=proposal.patch,
        stage=status.stage if status else "unexamined",
        code=status.code if status else None,
        detail=status.detail if status else "the trainer has not looked at it yet",
        report=status.report if status else None,
        documents=status.documents if status else None,
        approved_by=status.approved_by if status else None,
        release=status.release if status else None,
        reviews=tuple(
            ChangeReviewView(
                reviewer=each.reviewer, verdict=each.verdict, reason=each.reason, at=each.reviewed_at
            )
            for each in known.reviews
        ),
    )
