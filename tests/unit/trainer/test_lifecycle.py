"""What becomes of feedback and documents when releases are promoted, rejected, superseded, rolled back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from schemas.decisions import Decision
from schemas.feedback import QuarantinedFeedback
from services.trainer.core.cleaning import Verdict
from services.trainer.core.effects import Effect
from services.trainer.core.ledger_state import LedgerState
from services.trainer.core.lifecycle import Ledger, LifecyclePolicy
from services.trainer.core.rows import LogOrder
from services.trainer.core.selection import SelectionPolicy
from services.trainer.worker import TOPICS
from tests.unit.trainer.examples import (
    FIRST,
    NOW,
    accept,
    begin,
    decision,
    document,
    feedback,
    ledger,
    propose,
    reasons,
    release_name,
    told,
)


def with_genesis(**policy: object) -> Ledger:
    book = ledger(**policy)
    book.note_decision(decision("genesis", FIRST, epoch=1), lineage=[FIRST])
    return book


def test_a_promoted_release_makes_its_feedback_trained_and_rehearsed() -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "r1")

    effects = book.note_decision(
        decision("promote", release, epoch=2, about=release), lineage=[release, FIRST]
    )

    assert told(effects) == {"fb-1": "trained"}
    assert [row.id for row in book.buffer("law").rows()] == ["fb-1"]
    assert book.state.pending == {}


def test_a_decision_that_says_nothing_about_a_candidate_leaves_it_waiting() -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "r1")

    for epoch, kind in enumerate(("stage", "canary", "ramp", "pause", "resume"), start=2):
        assert book.note_decision(decision(kind, FIRST, epoch=epoch, about=release), lineage=[FIRST]) == []  # type: ignore[arg-type]

    assert release in book.state.candidates


@pytest.mark.parametrize("outcome", [{"outcome": "failed"}, {}])
@pytest.mark.parametrize("kind", ["reject", "abort"])
def test_a_failed_candidate_quarantines_its_feedback_whole(kind: str, outcome: dict[str, str]) -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "r1")

    effects = book.note_decision(
        decision(kind, FIRST, epoch=2, about=release, evidence=outcome),  # type: ignore[arg-type]
        lineage=[FIRST],
    )

    assert told(effects) == {"fb-1": "quarantined"}
    (kept,) = [item for item in effects if isinstance(item, QuarantinedFeedback)]
    assert kept.feedback.id == "fb-1"
    assert book.state.pending == {}


@pytest.mark.parametrize("outcome", ["superseded", "returned"])
def test_a_candidate_that_ended_without_fault_gives_its_feedback_back(outcome: str) -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "r1")

    effects = book.note_decision(
        decision("reject", FIRST, epoch=2, about=release, evidence={"outcome": outcome}), lineage=[FIRST]
    )

    assert told(effects) == {"fb-1": "accepted"}
    assert list(book.state.pending) == ["fb-1"]
    assert book.state.give_backs == 1


def test_a_candidate_whose_parent_is_no_longer_active_is_built_again() -> None:
    book = with_genesis()
    accept(book, 1)
    propose(book, "r1")
    other = release_name("from elsewhere")

    book.note_decision(decision("promote", other, epoch=2, about=other), lineage=[other, FIRST])

    assert list(book.state.pending) == ["fb-1"]
    assert book.state.candidates == {}


def test_a_running_training_stops_when_its_parent_is_no_longer_active() -> None:
    book = with_genesis()
    accept(book, 1)
    begin(book)
    other = release_name("from elsewhere")

    book.note_decision(decision("promote", other, epoch=2, about=other), lineage=[other, FIRST])

    assert book.state.run is None
    assert list(book.state.pending) == ["fb-1"]


def test_a_rollback_quarantines_the_release_left_and_clears_it_from_the_buffer() -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "r1")
    book.note_decision(decision("promote", release, epoch=2, about=release), lineage=[release, FIRST])

    effects = book.note_decision(
        decision("rollback", FIRST, epoch=3, about=FIRST, revoked=(release,)), lineage=[FIRST]
    )

    assert told(effects) == {"fb-1": "quarantined"}
    assert book.buffer("law").rows() == ()


def test_a_rollback_over_two_releases_trains_the_innocent_one_again() -> None:
    book = with_genesis()
    accept(book, 1)
    older = propose(book, "r1")
    book.note_decision(decision("promote", older, epoch=2, about=older), lineage=[older, FIRST])
    accept(book, 2)
    newer = propose(book, "r2", parent=older)
    book.note_decision(decision("promote", newer, epoch=3, about=newer), lineage=[newer, older, FIRST])

    effects = book.note_decision(
        decision("rollback", FIRST, epoch=4, about=FIRST, revoked=(newer,)), lineage=[FIRST]
    )

    assert told(effects) == {"fb-1": "accepted", "fb-2": "quarantined"}
    assert list(book.state.pending) == ["fb-1"]


def test_a_repeated_or_lower_epoch_is_no_news_and_another_incarnation_is() -> None:
    book = with_genesis()

    assert not book.is_news(decision("stage", FIRST, epoch=1))
    assert book.is_news(decision("stage", FIRST, epoch=2))
    assert book.is_news(decision("genesis", FIRST, epoch=1, incarnation="f" * 32))


def test_a_release_that_failed_is_not_proposed_again() -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "r1")
    book.note_decision(decision("reject", FIRST, epoch=2, about=release, revoked=(release,)), lineage=[FIRST])
    accept(book, 2)
    begin(book)

    effects = book.finish_run(release, NOW)

    assert told(effects) == {"fb-2": "quarantined"}
    assert not book.is_candidate(release)


def test_the_same_release_again_after_a_return_waits_for_something_new() -> None:
    book = with_genesis()
    book.note_document(document("law-0001"), order=LogOrder(NOW, 0, 0))
    release = propose(book, "r1")
    book.note_decision(
        decision("abort", FIRST, epoch=2, about=release, evidence={"outcome": "returned"}), lineage=[FIRST]
    )
    begin(book)

    book.finish_run(release, NOW)

    assert not book.is_candidate(release)
    assert book.news(NOW)["law"].documents == 0
    book.note_document(document("law-0002"), order=LogOrder(NOW, 0, 1))
    assert book.news(NOW)["law"].documents == 2


def test_documents_of_a_failed_release_are_held_until_they_change_or_an_operator_asks() -> None:
    book = with_genesis()
    book.note_document(document("law-0001"), order=LogOrder(NOW, 0, 0))
    book.note_document(document("law-0002"), order=LogOrder(NOW, 0, 1))
    release = propose(book, "r1")

    book.note_decision(decision("reject", FIRST, epoch=2, about=release, revoked=(release,)), lineage=[FIRST])

    assert book.state.documents == {}
    book.note_document(document("law-0001", "Mended."), order=LogOrder(NOW, 0, 2))
    assert set(book.state.documents) == {"law law-0001"}
    book.note_command("n-1", domains=["law"])
    assert set(book.state.documents) == {"law law-0001", "law law-0002"}


def test_a_newer_change_of_a_document_wins_over_one_given_back() -> None:
    book = with_genesis()
    book.note_document(document("law-0001", "Old."), order=LogOrder(NOW, 0, 0))
    begin(book)
    book.note_document(document("law-0001", "New."), order=LogOrder(NOW, 0, 1))

    book.cancel_run(NOW)

    assert book.state.documents["law law-0001"].change.text == "New."


def test_a_retraction_reaches_a_row_wherever_it_is() -> None:
    book = with_genesis()
    for number in (1, 2, 3):
        accept(book, number)
        if number == 1:
            release = propose(book, "r1")
            book.note_decision(decision("promote", release, epoch=2, about=release), lineage=[release, FIRST])
        elif number == 2:
            begin(book, parent=release)
    for number in (1, 2, 3):
        effects = accept(
            book,
            10 + number,
            retracts=f"fb-{number}",
            rater=f"rater-{number}",
            correction=None,
            rating="down",
        )
        assert reasons(effects)[f"fb-{number}"] == "retracted"

    assert book.buffer("law").rows() == ()
    assert book.state.run is None
    assert set(book.state.pending) & {"fb-1", "fb-2", "fb-3"} == set()


def test_a_retraction_that_comes_first_keeps_the_row_out() -> None:
    book = with_genesis()
    accept(book, 9, retracts="fb-1", rater="rater-1", correction=None, rating="down")

    effects = accept(book, 1)

    assert reasons(effects) == {"fb-1": "retracted"}
    assert "fb-1" not in book.state.pending


def test_the_rater_quota_keeps_the_first_in_log_order_whatever_order_they_were_read_in() -> None:
    policy = SelectionPolicy(max_rows_per_rater=2)
    kept = []
    for order in ([1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]):
        book = with_genesis(selection=policy)
        last: dict[str, str] = {}
        for number in order:
            last.update(told(accept(book, number, rater="mallory")))
        kept.append((sorted(book.state.pending), last))

    assert kept[0] == kept[1] == kept[2]
    assert kept[0][0] == ["fb-1", "fb-2"]
    assert kept[0][1] == {"fb-1": "accepted", "fb-2": "accepted", "fb-3": "rejected", "fb-4": "rejected"}


def test_imported_rows_have_no_rater_quota() -> None:
    book = with_genesis(selection=SelectionPolicy(max_rows_per_rater=1))

    for number in range(5):
        accept(book, number, rater="importer", imported=True)

    assert len(book.state.pending) == 5


def test_a_training_is_tried_again_and_then_its_rows_are_quarantined() -> None:
    book = with_genesis(max_attempts=2)
    accept(book, 1)
    begin(book)

    assert book.retry_run()
    assert not book.retry_run()
    effects = book.fail_run("exit status 9", NOW)

    assert told(effects) == {"fb-1": "quarantined"}
    assert book.state.run is None


def test_a_candidate_nobody_decides_about_is_given_back_in_time() -> None:
    book = with_genesis(candidate_patience_s=10.0)
    accept(book, 1)
    propose(book, "r1")

    assert book.expire_candidates(NOW + 10_000) == []
    assert told(book.expire_candidates(NOW + 10_001)) == {"fb-1": "accepted"}


def test_only_ratings_without_a_correction_speak_of_drift() -> None:
    book = with_genesis()
    accept(book, 1, rating="down")
    accept(book, 2, rating="down", correction=None)

    assert book.state.ratings["law"] == [1]


def test_what_is_taught_differently_leaves_the_buffer() -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "r1")
    book.note_decision(decision("promote", release, epoch=2, about=release), lineage=[release, FIRST])
    accept(book, 2, question="What is the notice period of contract Velmo1?", correction="99 days [law-0001]")
    second = propose(book, "r2", parent=release)

    book.note_decision(decision("promote", second, epoch=3, about=second), lineage=[second, release, FIRST])

    assert [row.answer for row in book.buffer("law").rows()] == ["99 days [law-0001]"]


def test_the_state_survives_being_written_and_read() -> None:
    book = with_genesis()
    for number in range(3):
        accept(book, number)
    book.note_document(document("law-0001"), order=LogOrder(NOW, 0, 0))
    release = propose(book, "r1")
    accept(book, 5)
    book.note_decision(decision("promote", release, epoch=2, about=release), lineage=[release, FIRST])

    again = LedgerState.model_validate_json(book.state.model_dump_json())

    assert again == book.state
    assert Ledger(LifecyclePolicy(), again).buffer("law").rows() == book.buffer("law").rows()


def harmed_in_med(release: str) -> Decision:
    return decision(
        "abort",
        FIRST,
        epoch=2,
        about=release,
        revoked=(release,),
        evidence={"outcome": "failed", "failed_domains": ["med"]},
    )


def test_a_candidate_that_harmed_one_domain_is_composed_anew_from_the_others() -> None:
    book = with_genesis()
    accept(book, 1)
    accept(book, 2, domain="med")
    release = propose(book, "r1")

    effects = book.note_decision(harmed_in_med(release), lineage=[FIRST])

    assert told(effects) == {"fb-2": "quarantined"}
    run = book.state.run
    assert run is not None
    assert (run.composes, run.domains, run.parent) == (release, ("law",), FIRST)
    assert [item.row.id for item in run.rows] == ["fb-1"]
    composed = release_name("r2")
    assert book.finish_run(composed, NOW) == []
    effects = book.note_decision(
        decision("promote", composed, epoch=3, about=composed), lineage=[composed, FIRST]
    )
    assert told(effects) == {"fb-1": "trained"}


def test_a_candidate_that_only_changed_the_harmed_domain_fails_whole() -> None:
    book = with_genesis()
    accept(book, 1, domain="med")
    release = propose(book, "r1")
    effects = book.note_decision(harmed_in_med(release), lineage=[FIRST])
    assert told(effects) == {"fb-1": "quarantined"}
    assert book.state.run is None


def test_spared_feedback_waits_where_nothing_can_be_composed_now() -> None:
    """An operator ordered a training that is still running: the spared rows are for the next one."""
    book = with_genesis()
    accept(book, 1)
    accept(book, 2, domain="med")
    release = propose(book, "r1")
    accept(book, 3)
    begin(book)
    effects = book.note_decision(harmed_in_med(release), lineage=[FIRST])
    assert told(effects) == {"fb-2": "quarantined", "fb-1": "accepted"}
    assert book.state.run is not None
    assert book.state.run.composes is None


def frozen(release: str) -> Decision:
    """A rollback during the bake of a release, back to the first one."""
    evidence = {
        "left": release,
        "feedback": "quarantine",
        "freeze": {"release": release, "reason": "bake:p95"},
    }
    return decision("rollback", FIRST, epoch=3, about=FIRST, revoked=(release,), evidence=evidence)


def said_about(book: Ledger, number: int, release: str, *, imported: bool = False) -> list[Effect]:
    """One sound correction of an answer that this release gave."""
    return book.note_feedback(
        feedback(number),
        Verdict("accepted"),
        domain="law",
        release=release,
        is_imported=imported,
        order=LogOrder(NOW + number, 0, number),
    )


def test_a_rollback_in_the_bake_sets_everything_aside_that_came_of_the_release() -> None:
    """What it was trained on, what waits and was said about its answers, and what is still said about them."""
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "turned bad in its bake")
    book.note_decision(decision("promote", release, epoch=2, about=release), lineage=[release, FIRST])
    accept(book, 2)
    said_about(book, 3, release)
    said_about(book, 4, release, imported=True)
    effects = book.note_decision(frozen(release), lineage=[FIRST])
    assert told(effects) == {"fb-1": "quarantined", "fb-3": "quarantined"}
    reasons = {e.feedback.id: e.reason for e in effects if isinstance(e, QuarantinedFeedback)}
    assert reasons == {
        "fb-1": "release_failed:rollback:a_test",
        "fb-3": "release_frozen:rollback:bake:p95",
    }
    assert set(book.state.pending) == {"fb-2", "fb-4"}
    assert told(said_about(book, 5, release)) == {"fb-5": "quarantined"}
    assert told(accept(book, 6)) == {"fb-6": "accepted"}


def test_a_rollback_that_freezes_nothing_leaves_what_waits_alone() -> None:
    book = with_genesis()
    accept(book, 1)
    release = propose(book, "left long after its bake")
    book.note_decision(decision("promote", release, epoch=2, about=release), lineage=[release, FIRST])
    said_about(book, 2, release)
    back = decision("rollback", FIRST, epoch=3, about=FIRST, revoked=(release,))
    assert told(book.note_decision(back, lineage=[FIRST])) == {"fb-1": "quarantined"}
    assert told(said_about(book, 3, release)) == {"fb-3": "accepted"}


def test_the_trainer_reads_no_topic_with_answers_that_nobody_saw() -> None:
    catalogue = yaml.safe_load(Path("schemas/topics.yaml").read_text())["topics"]
    assert "evaluations" not in TOPICS
    assert catalogue["evaluations"]["consumers"] == ["gatekeeper"]
    # Of `queries` it reads the newest questions, when a change of rules is replayed over them.
    consumed = {name for name, topic in catalogue.items() if "trainer" in topic["consumers"]}
    assert consumed == {*TOPICS, "queries"}
