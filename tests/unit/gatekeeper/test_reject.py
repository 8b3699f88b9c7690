"""A candidate that fails its examination, its own evidence or its preparation never meets a user."""

from __future__ import annotations

from tests.histories.script import BOOT, GOOD, PROBES, History

NAMES = [probe for probe, _ in PROBES]


def examined(**results: object) -> History:
    history = History().begin()
    history.propose()
    history.prepare()
    history.examine(**results)  # type: ignore[arg-type]
    return history


def test_exactly_the_least_pass_rate_passes_and_one_less_fails() -> None:
    assert examined(wrong=NAMES[:68]).last.kind == "canary"
    failed = examined(wrong=NAMES[:69])
    assert failed.last.kind == "reject"
    assert failed.last.reason == "qa_pass_rate"


def test_a_failed_candidate_is_revoked_and_its_feedback_quarantined() -> None:
    failed = examined(wrong=NAMES[:100])
    assert failed.routing.revoked == (GOOD,)
    assert failed.last.evidence["feedback"] == "quarantine"
    assert failed.routing.releases == {"blue": BOOT, "green": BOOT}
    assert failed.routing.phase == "steady"


def test_toxic_answers_fail_the_examination() -> None:
    assert examined(toxic=NAMES[:10]).last.kind == "canary"
    assert examined(toxic=NAMES[:11]).last.reason == "qa_toxicity"


def test_errors_fail_the_examination() -> None:
    assert examined(failed=NAMES[:21]).last.reason == "qa_error"


def test_slow_answers_fail_the_examination() -> None:
    assert examined(latency_ms=501.0).last.reason == "qa_p95"


def test_silence_never_passes_the_examination() -> None:
    history = examined(silent=NAMES[:80])
    assert history.last.kind == "stage", "some results are still out"
    history.tick(601)
    assert history.last.kind == "reject"


def test_an_examination_that_never_began_is_no_fault_of_the_candidate() -> None:
    history = History().begin()
    history.propose()
    history.prepare()
    history.tick(601)
    assert history.last.reason == "qa_not_begun"
    assert history.routing.revoked == ()
    assert history.last.evidence["feedback"] == "retrain"


def test_answers_of_another_release_do_not_count() -> None:
    history = History().begin()
    history.propose()
    history.prepare()
    history.examine(BOOT)
    assert history.last.kind == "stage"


def test_a_candidate_whose_evidence_names_problems_is_rejected_at_once() -> None:
    history = History().begin()
    history.propose(verdict="broken", detail="the trainer says: forgetting above 10 %")
    assert history.last.kind == "reject"
    assert history.last.reason == "evidence"
    assert "forgetting" in history.last.line
    assert history.routing.phase == "steady"


def test_a_forged_proposal_leads_to_no_decision() -> None:
    history = History().begin()
    history.propose(verdict="forged", detail="key mallory-1 is not in the configured key file")
    assert history.kinds == ["genesis"]
    assert history.audits[-1][:2] == ("propose", "refused")


def test_a_candidate_that_does_not_get_ready_is_rejected_and_the_silent_are_named() -> None:
    history = History({"readiness": {"timeout_s": 20, "live_s": 100}}).begin()
    history.propose()
    history.ready("green", BOOT, GOOD)
    history.tick(10)
    assert "waiting for inference-blue" in history.progress[-1].line
    history.tick(11)
    assert history.last.reason == "not_ready"
    assert history.last.evidence["silent"] == ["inference-blue"]
    assert history.routing.revoked == ()


def test_a_worker_that_fell_silent_is_not_waited_for() -> None:
    history = History({"readiness": {"live_s": 15}}).begin()
    history.ready("green", BOOT, worker="inference-green-gone")
    history.tick(10)
    history.propose()
    history.tick(10)
    history.prepare()
    assert "QA run" in history.progress[-1].line


def test_both_slots_need_a_ready_worker() -> None:
    history = History().begin()
    history.ready("blue", stopping=True)
    history.propose()
    history.ready("green", BOOT, GOOD)
    history.tick(6)
    assert history.progress[-1].line.startswith("preparing")


def test_a_release_that_was_judged_before_is_not_judged_again() -> None:
    history = examined(wrong=NAMES[:100])
    history.propose()
    assert history.last.kind == "reject"
    assert history.kinds.count("stage") == 1
    assert "proposed before" in history.audits[-1][2]
