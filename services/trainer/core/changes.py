"""What becomes of every proposed change of rules and prompt: a fold of proposals, reviews and the ledger.

received -> open -> approved -> candidate -> promoted; approved again where the active release moved on under its
candidate; undone by a rollback. Nothing is composed without the approval of another person than the author.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.audit import AuditEntry
from schemas.changes import (
    ChangeProposed,
    ChangeReviewed,
    ChangeStage,
    ChangeStatus,
    RefusalCode,
    ReleaseDocuments,
    RouteReport,
)
from services.trainer.core.effects import Effect
from services.trainer.core.ledger_state import ActiveView, Change, LedgerState
from twinloop.canonical import digest_of
from twinloop.errors import CommandRefused

PROPOSE = "propose-change"
WAITING: tuple[str, ...] = ("received", "open", "approved")
"""Stages in which a change can become stale, and that count against `max_open`."""


@dataclass(frozen=True)
class ChangeLimits:
    """Bounds of what is remembered and of what may wait."""

    max_open: int = 50
    """Changes that may wait for a person or for their release."""
    max_kept: int = 200
    """Changes kept whole after they have ended."""
    max_ended_ids: int = 20_000
    """Ids remembered after that, so that a repeated one does nothing."""


class ChangeBook:
    """Changes the part of the ledger's state that is about changes; no clock, no I/O."""

    def __init__(self, state: LedgerState, limits: ChangeLimits) -> None:
        self._state = state
        self._limits = limits

    # -- what people say -------------------------------------------------------------------------------------------

    def take_proposal(self, proposal: ChangeProposed, *, automatic: bool, at: int) -> list[Effect]:
        """Take note of a signed proposal; it is examined once the active release is known.

        Raises CommandRefused for an id that another proposal has. The same one again does nothing.
        """
        if proposal.id in self._state.ended_changes:
            return []
        known = self._state.changes.get(proposal.id)
        if known is not None:
            if known.proposal != proposal:
                raise CommandRefused(f"{proposal.id} names another change; choose another id")
            return []
        change = Change(proposal=proposal, automatic=automatic, noted_at=at)
        self._state.changes[proposal.id] = change
        self._forget()
        if sum(each.stage in WAITING for each in self._state.changes.values()) > self._limits.max_open:
            why = f"{self._limits.max_open} changes wait already; approve or reject some of them"
            return self.refuse(proposal.id, "too-many", why, at)
        return []

    def take_review(self, review: ChangeReviewed, *, at: int) -> list[Effect]:
        """Carry out what another person says; raises CommandRefused saying why it does not count."""
        change = self._state.changes.get(review.change)
        if change is None:
            raise CommandRefused(f"there is no change {review.change}")
        if review.proposal != digest_of(change.proposal):
            raise CommandRefused(f"the review is about another patch than that of {review.change}")
        if review.verdict == "reject":
            if change.stage not in WAITING or self._is_running(change):
                raise CommandRefused(f"{review.change} is {change.stage}: too late to reject it")
            return self._move(change, "rejected", f"by {review.reviewer}: {review.reason}", at)
        author = change.proposal
        if review.reviewer == author.author or review.key_id == author.key_id:
            raise CommandRefused(
                f"{author.author} proposed it: another person with another key has to approve it"
            )
        if change.stage == "received" and change.was_open:
            self._state.changes[review.change] = change.model_copy(update={"review": review})
            return []
        if change.stage != "open":
            raise CommandRefused(f"{review.change} is {change.stage}: only an open change can be approved")
        return self._approve(change, review, at)

    def take_status(self, status: ChangeStatus) -> None:
        """Our own words, read again: what was approved after them was approved with the report at hand."""
        change = self._state.changes.get(status.change)
        if change is not None and change.stage == "received" and status.stage == "open":
            self._state.changes[status.change] = change.model_copy(update={"was_open": True})

    def _approve(self, change: Change, review: ChangeReviewed, at: int) -> list[Effect]:
        change = change.model_copy(update={"review": review})
        return self._move(change, "approved", f"by {review.reviewer}: {review.reason}", at)

    # -- what looking at it found ----------------------------------------------------------------------------------

    def received(self) -> list[Change]:
        """Changes that nobody has looked at, oldest first."""
        return [change for change in self._state.changes.values() if change.stage == "received"]

    def open(self, name: str, documents: ReleaseDocuments, report: RouteReport, at: int) -> list[Effect]:
        """It is sound: it waits for another person."""
        change = self._state.changes[name].model_copy(update={"documents": documents, "report": report})
        detail = f"{report.moved} of {report.queries} recorded queries would go to another domain"
        told = [
            *self._move(change, "open", f"{detail}; another person has to approve it", at),
            audit(change.proposal, "accepted", detail, at),
        ]
        if change.review is not None:
            told += self._approve(self._state.changes[name], change.review, at)
        return told

    def refuse(self, name: str, code: RefusalCode, why: str, at: int) -> list[Effect]:
        """It is not sound and will never be applied."""
        change = self._state.changes[name]
        return [
            *self._move(change, "refused", why, at, code=code),
            audit(change.proposal, "refused", why, at),
        ]

    # -- what became of its release --------------------------------------------------------------------------------

    def next_approved(self) -> Change | None:
        """The change to compose a release of, where nothing is trained or judged; the oldest first."""
        state = self._state
        if state.active is None or state.run is not None:
            return None
        if any(candidate.stage == "undecided" for candidate in state.candidates.values()):
            return None
        return next((change for change in state.changes.values() if change.stage == "approved"), None)

    def propose_release(self, name: str, release: str, parent: str, at: int) -> list[Effect]:
        """Its release was composed: proposed where the ledger has it as a candidate, else known to have failed."""
        change = self._state.changes[name].model_copy(update={"release": release, "parent": parent})
        if release in self._state.candidates:
            return self._move(change, "candidate", "its release is proposed to the gatekeeper", at)
        why = "the very same release was decided about before; propose another change"
        return self._move(change, "failed", why, at)

    def fail(self, name: str, why: str, at: int) -> list[Effect]:
        """Its release could not be composed."""
        return self._move(self._state.changes[name], "failed", why, at)

    def follow(
        self, *, documents: ReleaseDocuments | None, before: ActiveView | None, at: int
    ) -> list[Effect]:
        """Settle every change by what the ledger says; `before` is what was active until the decision at hand.

        `documents` are those of the active release, None where they are not known.
        """
        told: list[Effect] = []
        if self._state.active is not None:
            for change in list(self._state.changes.values()):
                told += self._settle(change, self._state.active, documents, before, at)
        return told

    def _settle(
        self,
        change: Change,
        active: ActiveView,
        documents: ReleaseDocuments | None,
        before: ActiveView | None,
        at: int,
    ) -> Sequence[Effect]:
        release = change.release
        if release is not None and release in active.lineage:
            if change.stage == "promoted":
                return []
            return self._move(change, "promoted", active.line or "its release serves", at)
        if change.stage == "promoted":
            has_served = before is not None and release in before.lineage
            return self._move(change, "undone", active.line or "rolled back", at) if has_served else []
        if change.stage == "candidate" and release not in self._state.candidates:
            return self._ended(change, active, at)
        is_stale = documents is not None and change.proposal.base != documents
        if change.stage in ("open", "approved") and is_stale and not self._is_running(change):
            why = "rules or prompt of the active release are others by now; write the patch for them"
            return self._move(change, "stale", why, at)
        return []

    def _ended(self, change: Change, active: ActiveView, at: int) -> list[Effect]:
        if change.release in self._state.failed_releases or change.release in active.revoked:
            return self._move(change, "failed", active.line or "its release failed", at)
        if change.parent != active.release:
            again = change.model_copy(update={"release": None, "parent": None})
            return self._move(again, "approved", "the active release moved on: it is composed again", at)
        return self._move(change, "ended", active.line or "its candidate ended without a verdict", at)

    def _is_running(self, change: Change) -> bool:
        run = self._state.run
        return run is not None and run.change is not None and run.change.id == change.proposal.id

    def _move(
        self, change: Change, stage: ChangeStage, detail: str, at: int, *, code: RefusalCode | None = None
    ) -> list[Effect]:
        moved = change.model_copy(update={"stage": stage, "noted_at": at})
        review = moved.review if stage not in ("open", "refused") else None
        self._state.changes[change.proposal.id] = moved
        return [
            ChangeStatus(
                change=change.proposal.id,
                stage=stage,
                code=code,
                detail=detail[:1000],
                automatic=moved.automatic,
                documents=moved.documents,
                report=moved.report,
                approved_by=None if review is None else review.reviewer,
                release=moved.release,
                at=at,
            )
        ]

    def _forget(self) -> None:
        over = [
            name for name, each in self._state.changes.items() if each.stage not in (*WAITING, "candidate")
        ]
        for name in over[: max(0, len(over) - self._limits.max_kept)]:
            del self._state.changes[name]
            self._state.ended_changes.append(name)
        del self._state.ended_changes[: -self._limits.max_ended_ids]


def audit(proposal: ChangeProposed, result: str, detail: str, at: int) -> AuditEntry:
    """The audit entry of a proposal; like an order's it ends with what names it."""
    return AuditEntry.model_validate(
        {
            "at": at,
            "actor": proposal.author,
            "via": proposal.via,
            "action": PROPOSE,
            "target": proposal.id,
            "result": result,
            "detail": f"{detail[:350]} [{proposal.id}]",
        }
    )


def audit_review(review: ChangeReviewed, result: str, detail: str, at: int) -> AuditEntry:
    """The audit entry of a review."""
    return AuditEntry.model_validate(
        {
            "at": at,
            "actor": review.reviewer,
            "via": review.via,
            "action": f"{review.verdict}-change",
            "target": review.change,
            "result": result,
            "detail": f"{detail[:350]} [{review.nonce}]",
        }
    )
