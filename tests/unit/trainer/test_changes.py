"""What becomes of a proposed change: nothing without another person, and always what its release comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from schemas.audit import AuditEntry
from schemas.changes import (
    ChangeProposed,
    ChangeReviewed,
    ChangeStatus,
    PatchOperation,
    ReleaseDocuments,
    RouteReport,
)
from services.trainer.core.changes import ChangeBook, ChangeLimits
from services.trainer.core.effects import Effect
from services.trainer.core.ledger_state import ComposedChange, LedgerState, Run
from services.trainer.core.lifecycle import Ledger, LifecyclePolicy
from tests.unit.trainer.examples import FIRST, NOW, accept, begin, decision, release_name
from twinloop.canonical import digest_of
from twinloop.errors import CommandRefused

BASE = ReleaseDocuments(rules="1" * 64, prompt="2" * 64)
AFTER = ReleaseDocuments(rules="3" * 64, prompt="2" * 64)
REPORT = RouteReport(queries=9, fixed=0, moved=1, probes=0, probes_right_before=0, probes_right_after=0)
STEP = PatchOperation(op="replace", path="/rules/top_k", value=3)


class Desk:
    """A ledger, its changes, and the gatekeeper's decisions played by hand."""

    def __init__(self, **limits: Any) -> None:
        self.ledger = Ledger(LifecyclePolicy(), LedgerState())
        self.book = ChangeBook(self.ledger.state, ChangeLimits(**limits))
        self.epoch = 0
        self.decide("genesis", FIRST)

    def decide(
        self,
        kind: Any,
        active: str,
        *,
        lineage: Sequence[str] = (),
        documents: ReleaseDocuments = BASE,
        **more: Any,
    ) -> list[Effect]:
        self.epoch += 1
        before = self.ledger.state.active
        made = decision(kind, active, epoch=self.epoch, **more)
        self.ledger.note_decision(made, lineage=(active, *lineage))
        return self.book.follow(documents=documents, before=before, at=NOW)

    def propose(
        self, name: str = "pr-1", *, author: str = "olga", key: str = "operator-1", **more: Any
    ) -> list[Effect]:
        return self.book.take_proposal(
            proposal(name, author=author, key=key), automatic=more.get("automatic", False), at=NOW
        )

    def opened(self, name: str = "pr-1") -> list[Effect]:
        self.propose(name)
        return self.book.open(name, AFTER, REPORT, NOW)

    def review(
        self,
        verdict: Any = "approve",
        name: str = "pr-1",
        *,
        reviewer: str = "anna",
        key: str = "approver-1",
        **more: Any,
    ) -> list[Effect]:
        of = more.get("of") or self.ledger.state.changes[name].proposal
        return self.book.take_review(review(of, verdict, reviewer=reviewer, key=key), at=NOW)

    def compose(self, name: str = "pr-1") -> str:
        """Compose the release of an approved change and propose it."""
        change = self.book.next_approved()
        assert change is not None
        assert change.proposal.id == name
        active = self.ledger.state.active
        assert active is not None
        run = change_run(name, active.release)
        self.ledger.begin_run(run)
        release = release_name(f"{name} on {active.release}")
        self.ledger.finish_run(release, NOW)
        self.book.propose_release(name, release, active.release, NOW)
        return release

    def judged(self, name: str = "pr-1") -> str:
        self.opened(name)
        self.review(name=name)
        return self.compose(name)

    def stage(self, name: str = "pr-1") -> str:
        return self.ledger.state.changes[name].stage


def proposal(
    name: str, *, author: str = "olga", key: str = "operator-1", step: PatchOperation = STEP
) -> ChangeProposed:
    return ChangeProposed(
        id=name,
        author=author,
        base=BASE,
        patch=(step,),
        reason="a test",
        via="cli",
        proposed_at=NOW,
        key_id=key,
    )


def review(
    of: ChangeProposed, verdict: Any, *, reviewer: str = "anna", key: str = "approver-1"
) -> ChangeReviewed:
    return ChangeReviewed(
        nonce=f"n-{verdict}",
        change=of.id,
        proposal=digest_of(of),
        verdict=verdict,
        reviewer=reviewer,
        reason="read",
        via="cli",
        reviewed_at=NOW,
        key_id=key,
    )


def change_run(name: str, parent: str) -> Run:
    return Run(
        run_id=release_name(f"{name} {parent}"),
        dataset=release_name("none"),
        parent=parent,
        domains=(),
        reason="change",
        rows=(),
        documents=(),
        offsets=(),
        seed=42,
        started_at=NOW,
        change=ComposedChange(
            id=name, documents=AFTER, author="olga", approved_by="anna", proposal="4" * 64, review="5" * 64
        ),
    )


def stages(effects: Sequence[Effect]) -> list[str]:
    return [each.stage for each in effects if isinstance(each, ChangeStatus)]


def test_a_sound_change_waits_for_another_person() -> None:
    desk = Desk()
    assert desk.propose() == []
    told = desk.book.open("pr-1", AFTER, REPORT, NOW)
    assert stages(told) == ["open"]
    (entry,) = [each for each in told if isinstance(each, AuditEntry)]
    assert (entry.actor, entry.action, entry.target, entry.result) == (
        "olga",
        "propose-change",
        "pr-1",
        "accepted",
    )
    assert desk.book.next_approved() is None


@pytest.mark.parametrize(
    ("reviewer", "key"), [("olga", "approver-1"), ("anna", "operator-1"), ("olga", "operator-1")]
)
def test_an_author_approves_nothing_of_their_own_by_another_name_or_another_key(
    reviewer: str, key: str
) -> None:
    desk = Desk()
    desk.opened()
    with pytest.raises(CommandRefused, match="another person with another key"):
        desk.review(reviewer=reviewer, key=key)
    assert desk.stage() == "open"


def test_a_program_s_change_needs_a_person_like_any_other() -> None:
    desk = Desk()
    desk.propose(author="trainer-1", key="trainer-1", automatic=True)
    desk.book.open("pr-1", AFTER, REPORT, NOW)
    assert desk.book.next_approved() is None
    with pytest.raises(CommandRefused):
        desk.review(reviewer="trainer-1", key="trainer-1")
    assert stages(desk.review()) == ["approved"]


def test_an_approval_is_about_the_patch_that_was_looked_at() -> None:
    desk = Desk()
    desk.opened()
    other = proposal("pr-1", step=PatchOperation(op="replace", path="/rules/top_k", value=9))
    with pytest.raises(CommandRefused, match="another patch"):
        desk.review(of=other)


def test_a_change_nobody_examined_cannot_be_approved() -> None:
    desk = Desk()
    desk.propose()
    with pytest.raises(CommandRefused, match="only an open change"):
        desk.review()


def test_an_id_names_one_change_for_ever() -> None:
    desk = Desk()
    desk.opened()
    assert desk.propose() == []
    assert desk.stage() == "open"
    with pytest.raises(CommandRefused, match="another change"):
        desk.propose(author="otto")


def test_only_so_many_changes_may_wait() -> None:
    desk = Desk(max_open=2)
    desk.opened("pr-1")
    desk.opened("pr-2")
    assert stages(desk.propose("pr-3")) == ["refused"]
    assert desk.ledger.state.changes["pr-3"].stage == "refused"
    desk.review("reject", "pr-1", reviewer="olga", key="operator-1")
    assert desk.propose("pr-4") == []


def test_ended_changes_are_forgotten_oldest_first() -> None:
    desk = Desk(max_kept=3)
    for number in range(6):
        desk.propose(f"pr-{number}")
        desk.book.refuse(f"pr-{number}", "bounds", "no", NOW)
    desk.propose("pr-last")
    assert list(desk.ledger.state.changes) == ["pr-3", "pr-4", "pr-5", "pr-last"]
    assert desk.propose("pr-0") == []
    assert "pr-0" not in desk.ledger.state.changes


def test_an_approved_change_waits_while_something_is_trained_or_judged() -> None:
    desk = Desk()
    desk.opened()
    desk.review()
    accept(desk.ledger, 1)
    begin(desk.ledger)
    assert desk.book.next_approved() is None
    desk.ledger.finish_run(release_name("trained"), NOW)
    assert desk.book.next_approved() is None
    desk.decide("reject", FIRST, about=release_name("trained"), evidence={"outcome": "failed"})
    assert desk.book.next_approved() is not None


def test_no_training_starts_while_the_release_of_a_change_is_judged() -> None:
    desk = Desk()
    desk.judged()
    assert desk.stage() == "candidate"
    assert desk.ledger.readiness().has_undecided_candidate


def test_a_promoted_change_makes_others_on_the_same_documents_stale() -> None:
    desk = Desk()
    desk.opened("pr-2")
    release = desk.judged()
    told = desk.decide("promote", release, lineage=[FIRST], documents=AFTER)
    assert stages(told) == ["stale", "promoted"]
    assert desk.stage("pr-2") == "stale"
    with pytest.raises(CommandRefused, match="is stale"):
        desk.review(name="pr-2")


def test_a_rollback_undoes_a_promoted_change() -> None:
    desk = Desk()
    release = desk.judged()
    desk.decide("promote", release, lineage=[FIRST], documents=AFTER)
    assert desk.decide("bake_end", release, lineage=[FIRST], documents=AFTER) == []
    told = desk.decide("rollback", FIRST, revoked=(release,))
    assert stages(told) == ["undone"]
    assert desk.decide("bake_end", FIRST, revoked=(release,)) == []


def test_a_rollback_past_a_change_undoes_it_too() -> None:
    desk = Desk()
    release = desk.judged()
    desk.decide("promote", release, lineage=[FIRST], documents=AFTER)
    later = release_name("later")
    desk.decide("promote", later, lineage=[release, FIRST], documents=AFTER)
    assert stages(desk.decide("rollback", FIRST, revoked=(later,))) == ["undone"]


def test_a_change_whose_release_fails_has_failed_with_the_reason() -> None:
    desk = Desk()
    release = desk.judged()
    told = desk.decide("abort", FIRST, about=release, revoked=(release,), evidence={"outcome": "failed"})
    assert stages(told) == ["failed"]
    assert desk.ledger.state.changes["pr-1"].stage == "failed"
    assert desk.book.next_approved() is None


def test_a_change_is_composed_again_where_the_active_release_moved_on() -> None:
    desk = Desk()
    release = desk.judged()
    other = release_name("trained elsewhere")
    told = desk.decide("promote", other, lineage=[FIRST])
    assert stages(told) == ["approved"]
    again = desk.compose()
    assert again != release
    assert desk.ledger.state.changes["pr-1"].parent == other


def test_a_change_that_is_being_composed_when_the_active_release_moves_is_composed_again() -> None:
    desk = Desk()
    desk.opened()
    desk.review()
    desk.ledger.begin_run(change_run("pr-1", FIRST))
    with pytest.raises(CommandRefused, match="too late"):
        desk.review("reject")
    assert desk.decide("promote", release_name("other"), lineage=[FIRST]) == []
    assert desk.ledger.state.run is None
    assert desk.book.next_approved() is not None


def test_a_candidate_that_a_person_took_back_is_not_tried_again() -> None:
    desk = Desk()
    release = desk.judged()
    told = desk.decide("abort", FIRST, about=release, evidence={"outcome": "returned"})
    assert stages(told) == ["ended"]
    assert desk.book.next_approved() is None


def test_a_candidate_nobody_decides_about_ends() -> None:
    desk = Desk()
    desk.judged()
    desk.ledger.expire_candidates(NOW + 7 * 3_600_000)
    assert stages(desk.book.follow(documents=BASE, before=None, at=NOW)) == ["ended"]


def test_the_same_release_is_not_judged_twice() -> None:
    desk = Desk()
    release = desk.judged("pr-1")
    desk.decide("abort", FIRST, about=release, revoked=(release,), evidence={"outcome": "failed"})
    desk.opened("pr-2")
    desk.review(name="pr-2")
    desk.ledger.begin_run(change_run("pr-2", FIRST))
    desk.ledger.finish_run(release, NOW)
    assert stages(desk.book.propose_release("pr-2", release, FIRST, NOW)) == ["failed"]


def test_an_approval_read_again_holds_once_the_change_was_examined_again() -> None:
    desk = Desk()
    desk.propose()
    desk.book.take_status(ChangeStatus(change="pr-1", stage="open", at=NOW))
    assert desk.review() == []
    assert stages(desk.book.open("pr-1", AFTER, REPORT, NOW)) == ["open", "approved"]
    change = desk.ledger.state.changes["pr-1"]
    assert change.review is not None
    assert change.review.reviewer == "anna"


def test_what_a_status_claims_approves_nothing() -> None:
    desk = Desk()
    desk.propose()
    for stage in ("open", "approved", "candidate", "promoted"):
        desk.book.take_status(ChangeStatus.model_validate({"change": "pr-1", "stage": stage, "at": NOW}))
    assert desk.stage() == "received"
    desk.book.open("pr-1", AFTER, REPORT, NOW)
    assert desk.stage() == "open"
