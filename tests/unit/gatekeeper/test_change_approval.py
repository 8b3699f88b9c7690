"""Rules and prompt of a candidate are its parent's, or another person approved the very patch that leads to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from schemas.changes import ChangeProposed, ChangeReviewed, PatchOperation, ReleaseDocuments
from services.gatekeeper.release_checks import ReleaseChecks
from tests.unit.changes.documents import steps
from tests.unit.gatekeeper.release_shelf import Shelf
from twinloop.canonical import canonical_json
from twinloop.changes.patching import Documents, patched
from twinloop.changes.signed import signed_proposal, signed_review
from twinloop.errors import Transient
from twinloop.signing import KeyRing, sign_document

NOW = 1_790_000_000_000
MORE_PASSAGES = steps({"op": "replace", "path": "/rules/top_k", "value": 7})
OTHER_PROMPT = steps({"op": "replace", "path": "/prompt/min_passage_coverage", "value": 0.5})


class ApprovalOffice(Shelf):
    """Proposes changes of the one release's documents and approves them, rightly or not."""

    def proposed(self, patch: Sequence[PatchOperation] = MORE_PASSAGES, **changes: Any) -> ChangeProposed:
        key = changes.pop("key", "operator-1")
        fields: dict[str, Any] = {"author": "olga", "change": "pr-1", "base": self.documents, **changes}
        return signed_proposal(self.signer(key), patch, reason="a test", via="cli", now_ms=NOW, **fields)

    def reviewed(self, proposal: ChangeProposed, **changes: Any) -> ChangeReviewed:
        key, verdict = changes.pop("key", "approver-1"), changes.pop("verdict", "approve")
        fields: dict[str, Any] = {"reviewer": "anna", "nonce": "n-1", **changes}
        return signed_review(
            self.signer(key), proposal, verdict, reason="read", via="cli", now_ms=NOW, **fields
        )

    def verdict(
        self,
        proposal: ChangeProposed | None,
        review: ChangeReviewed | None,
        *,
        patch: Sequence[PatchOperation] = MORE_PASSAGES,
    ) -> tuple[str, str]:
        """What is said about a candidate that the trainer signed, with what this patch leads to."""
        before = Documents.read(self.store.get(self.release.rules), self.store.get(self.release.prompt))
        after = patched(before, patch)
        signed: dict[str, ChangeProposed | ChangeReviewed | None] = {"proposal": proposal, "review": review}
        named: dict[str, JsonValue] = {
            part: self.store.put(canonical_json(document))
            for part, document in signed.items()
            if document is not None
        }
        event = self.child(
            metrics={"change": {"id": "pr-1", **named}} if named else {},
            rules=self.store.put(after.rules_bytes),
            prompt=self.store.put(after.prompt_bytes),
        )
        seen = self.checks.proposal(event, source_offset=0)
        return seen.verdict, seen.detail

    @property
    def documents(self) -> ReleaseDocuments:
        return ReleaseDocuments(rules=self.release.rules, prompt=self.release.prompt)


@pytest.fixture
def office(tmp_path: Path) -> ApprovalOffice:
    return ApprovalOffice(tmp_path)


def refusal(office: ApprovalOffice, *signed: Any, **rest: Any) -> str:
    verdict, detail = office.verdict(*signed, **rest)
    assert verdict == "broken"
    assert "without a valid approval" in detail
    return detail


@pytest.mark.parametrize("patch", [MORE_PASSAGES, OTHER_PROMPT, [*MORE_PASSAGES, *OTHER_PROMPT]])
def test_a_change_that_another_person_approved_is_judged(
    office: ApprovalOffice, patch: list[PatchOperation]
) -> None:
    proposal = office.proposed(patch)
    assert office.verdict(proposal, office.reviewed(proposal), patch=patch) == ("valid", "")


def test_a_candidate_with_its_parent_s_rules_and_prompt_needs_no_review(office: ApprovalOffice) -> None:
    seen = office.checks.proposal(office.child(), source_offset=0)
    assert (seen.verdict, seen.detail) == ("valid", "")


@pytest.mark.parametrize(
    ("patch", "named"),
    [
        (MORE_PASSAGES, "rules differ"),
        (OTHER_PROMPT, "prompt differ"),
        ([*MORE_PASSAGES, *OTHER_PROMPT], "rules and prompt"),
    ],
)
def test_the_trainer_s_signature_alone_changes_neither_rules_nor_prompt(
    office: ApprovalOffice, patch: list[PatchOperation], named: str
) -> None:
    why = refusal(office, None, None, patch=patch)
    assert named in why
    assert "names no change" in why


def test_a_change_without_its_review_is_refused(office: ApprovalOffice) -> None:
    assert "the signed review is not in the store" in refusal(office, office.proposed(), None)


def test_a_forged_review_is_refused(office: ApprovalOffice) -> None:
    proposal = office.proposed()
    genuine = office.reviewed(proposal)
    by_trainer = sign_document(genuine, office.signer("trainer-1"))
    forged = by_trainer.model_copy(update={"key_id": "approver-1"})
    assert "does not fit" in refusal(office, proposal, forged)
    assert "may not act as approver" in refusal(office, proposal, by_trainer)
    assert "does not fit" in refusal(office, proposal, genuine.model_copy(update={"reviewer": "aron"}))
    unknown = genuine.model_copy(update={"key_id": "approver-9"})
    assert "not in the configured key file" in refusal(office, proposal, unknown)


def test_a_forged_proposal_is_refused_although_it_was_approved(office: ApprovalOffice) -> None:
    forged = office.proposed().model_copy(update={"author": "omar"})
    assert "does not fit" in refusal(office, forged, office.reviewed(forged))


def test_an_operator_s_review_approves_nothing(office: ApprovalOffice) -> None:
    proposal = office.proposed(key="approver-2")
    review = office.reviewed(proposal, key="operator-1")
    assert "may not act as approver" in refusal(office, proposal, review)


def test_nobody_approves_what_they_proposed(office: ApprovalOffice) -> None:
    same_key = office.proposed(key="approver-1")
    assert "another person with another key" in refusal(office, same_key, office.reviewed(same_key))
    same_name = office.proposed(author="anna")
    assert "another person with another key" in refusal(office, same_name, office.reviewed(same_name))


def test_a_key_that_may_act_as_the_trainer_approves_nothing(office: ApprovalOffice) -> None:
    proposal = office.proposed(author="trainer-1", key="trainer-1")
    review = office.reviewed(proposal, key="both-1")
    assert "a person has to approve" in refusal(office, proposal, review)
    assert office.verdict(proposal, office.reviewed(proposal)) == ("valid", "")


def test_the_review_of_another_change_is_refused(office: ApprovalOffice) -> None:
    proposal = office.proposed()
    assert "another change" in refusal(office, proposal, office.reviewed(office.proposed(change="pr-2")))
    assert "another change" in refusal(office, proposal, office.reviewed(office.proposed(OTHER_PROMPT)))


def test_a_rejection_is_no_approval(office: ApprovalOffice) -> None:
    proposal = office.proposed()
    assert "anna rejected pr-1" in refusal(office, proposal, office.reviewed(proposal, verdict="reject"))


def test_an_approved_patch_covers_what_it_leads_to_and_nothing_more(office: ApprovalOffice) -> None:
    proposal = office.proposed()
    more = [*MORE_PASSAGES, *OTHER_PROMPT]
    assert "other documents than the candidate's" in refusal(
        office, proposal, office.reviewed(proposal), patch=more
    )


def test_an_approval_for_other_documents_than_the_parent_s_is_refused(office: ApprovalOffice) -> None:
    old = ReleaseDocuments(rules="a" * 64, prompt=office.release.prompt)
    proposal = office.proposed(base=old)
    assert "other documents than the parent's" in refusal(office, proposal, office.reviewed(proposal))


def test_what_is_no_review_at_all_is_refused(office: ApprovalOffice) -> None:
    proposal = office.proposed()
    swapped: Any = proposal
    assert "malformed" in refusal(office, proposal, swapped)


def test_a_parent_that_nobody_published_proves_nothing(office: ApprovalOffice) -> None:
    event = office.child()
    (office.folder / "store" / "releases" / f"{office.name}.json").unlink()
    seen = office.checks.proposal(event, source_offset=0)
    assert seen.verdict == "broken"
    assert "parent" in seen.detail


def test_a_silent_store_refuses_nothing(office: ApprovalOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    event = office.child()
    checks = ReleaseChecks(office.store, KeyRing.load(office.folder / "keys" / "public.yaml"))

    def silent(name: str) -> bytes:
        raise Transient(f"{name}: no answer")

    monkeypatch.setattr(office.store, "get_document", silent)
    with pytest.raises(Transient):
        checks.proposal(event, source_offset=0)
