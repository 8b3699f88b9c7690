"""What the API knows is what the logs said, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.audit import AuditEntry
from schemas.decisions import Decision, GateProgress
from schemas.feedback import FeedbackStatus, QuarantinedFeedback
from schemas.releases import ReleaseProposed
from services.api.core.gate_series import KEPT_POINTS, GateSeries
from services.api.core.read_model import KEPT_REVIEWS, ReadModel
from services.api.core.swap_rule import missing_evidence
from services.api.core.views import canary_view, history_view, qa_view, release_views, status_view
from services.trainer.core.forgetting_matrix import forgetting_matrix
from tests.unit.api.desk import ACTIVE, CANDIDATE, NOW, decision, example, progress
from twinloop.orders import WAITS_FOR_ANOTHER

GOLDEN = Path("tests/histories/golden")


def status(feedback_id: str, disposition: Any, *, at: int = NOW, reason: str | None = None) -> FeedbackStatus:
    return FeedbackStatus(feedback_id=feedback_id, query_id="q", status=disposition, reason=reason, at=at)


def in_canary() -> ReadModel:
    model = ReadModel()
    model.take_decision(decision(3, "stage"), 3)
    model.take_decision(decision(4, "canary"), 4)
    return model


def test_the_first_record_of_an_epoch_holds() -> None:
    model = in_canary()
    assert not model.take_decision(decision(4, "abort"), 5)
    assert not model.take_decision(decision(2, "abort"), 6)
    assert model.state is not None
    assert model.state.phase == "canary"


def test_a_feedback_counts_once_under_its_last_status() -> None:
    model = ReadModel()
    model.take_feedback_status(status("f-1", "accepted"))
    model.take_feedback_status(status("f-1", "trained", at=NOW + 1))
    model.take_feedback_status(status("f-1", "accepted"))
    model.take_feedback_status(status("f-2", "rejected", reason="near_duplicate:f-9"))
    shown = status_view(model, now_ms=NOW, caught_up=True).feedback
    assert shown.statuses == {"trained": 1, "rejected": 1}
    assert shown.refusals == {"near_duplicate": 1}


def test_a_refusal_that_is_lifted_is_not_counted_any_more() -> None:
    model = ReadModel()
    model.take_feedback_status(status("f-1", "quarantined", reason="toxic"))
    model.take_feedback_status(status("f-1", "trained", at=NOW + 1))
    assert status_view(model, now_ms=NOW, caught_up=True).feedback.refusals == {}


def test_a_release_is_still_what_it_was_after_an_a_b_test() -> None:
    model = in_canary()
    promoted = decision(5, "promote")
    model.take_decision(promoted, 5)
    model.take_decision(decision(6, "ab_start", state={"phase": "canary"}), 6)
    model.take_decision(decision(7, "ab_end"), 7)
    assert model.outcomes[promoted.release or ""] == "promote"
    assert model.staged is None


def test_a_pause_lasts_until_it_is_undone() -> None:
    model = in_canary()
    model.take_decision(decision(5, "pause", state={"phase": "canary"}), 5)
    model.take_decision(decision(6, "ramp"), 6)
    assert model.paused is not None
    model.take_decision(decision(7, "resume", state={"phase": "canary"}), 7)
    assert model.paused is None


@pytest.mark.parametrize("kind", ["promote", "abort", "rollback", "restore"])
def test_whatever_takes_the_share_away_ends_the_canary(kind: str) -> None:
    model = in_canary()
    model.take_decision(decision(5, kind), 5)
    assert canary_view(model, points=10).ended is not None
    assert model.candidate is None


def test_a_pause_does_not_end_a_canary() -> None:
    model = in_canary()
    canary = decision(4).state.canary
    model.take_decision(decision(5, "pause", state={"phase": "canary", "canary": canary}), 5)
    assert model.canary.ended is None
    assert model.candidate == CANDIDATE


def test_a_long_canary_is_thinned_and_keeps_its_first_and_newest_points() -> None:
    series = GateSeries(CANDIDATE, decision())
    for at in range(KEPT_POINTS + 50):
        series.add(progress(at))
    assert len(series.points) <= KEPT_POINTS
    assert (series.points[0].at, series.points[-1].at) == (0, KEPT_POINTS + 49)
    assert [point.at for point in series.points] == sorted(point.at for point in series.points)


def test_a_gate_carries_the_interval_that_holds_at_every_look() -> None:
    model = in_canary()
    model.take_progress(progress(), 5)
    (point,) = canary_view(model, points=10).series
    gate = point.gates["promote:error_margin"]
    assert gate.low is not None
    assert gate.high is not None
    assert gate.low < 2 / 212 < gate.high < 0.1


def test_both_arms_have_the_intervals_that_the_gatekeeper_logged() -> None:
    """For p95 too, whose estimates are milliseconds: the share, and its interval, are those of slow answers."""
    logged = progress(statuses={"promote:p95": "open"})
    values = {**logged.gates[0].values, "est_s": 240.0, "ci_s": [0.001, 0.04], "ci_a": [0.006, 0.015]}
    model = in_canary()
    model.take_progress(logged.model_copy(update={"gates": (with_values(logged.gates[0], values),)}), 5)
    gate = canary_view(model, points=10).series[0].gates["promote:p95"]
    assert (gate.low, gate.high, gate.low_active, gate.high_active) == (0.001, 0.04, 0.006, 0.015)
    assert (gate.share, gate.share_active, gate.shadow) == (2 / 212, 0.01, 240.0)


def test_a_gate_with_one_arm_has_nothing_of_the_other() -> None:
    logged = progress(statuses={"promote:toxicity": "open"})
    values = {**logged.gates[0].values, "n_a": 0.0, "x_a": 0.0, "ci_s": [0.001, 0.04]}
    model = in_canary()
    model.take_progress(logged.model_copy(update={"gates": (with_values(logged.gates[0], values),)}), 5)
    gate = canary_view(model, points=10).series[0].gates["promote:toxicity"]
    assert (gate.share_active, gate.low_active, gate.high_active) == (None, None, None)


def with_values(gate: GateProgress, values: dict[str, Any]) -> GateProgress:
    return gate.model_copy(update={"values": values})


def test_progress_of_another_release_is_not_this_canary_s() -> None:
    model = in_canary()
    model.take_progress(progress(release=ACTIVE), 5)
    assert model.canary.points == []


@pytest.mark.parametrize(
    ("statuses", "needed", "is_enough"),
    [
        ({"promote:a": "cleared", "abort:a": "open"}, "", True),
        ({"promote:a": "cleared", "promote:b": "open"}, "", False),
        ({"promote:a": "cleared", "domain:law": "invalid"}, "", False),
        ({"promote:a": "cleared", "watch:trend": "breached"}, "", False),
        ({"promote:a": "cleared"}, "88 shadow queries", False),
        ({"promote:a": "cleared"}, "an approver: every gate is cleared", True),
        ({"promote:a": "cleared"}, "resume: every gate is cleared, but promotion is paused", False),
        ({"abort:a": "open"}, "", False),
    ],
)
def test_evidence_is_there_when_every_gate_has_cleared_and_nothing_speaks_against(
    statuses: dict[str, str], needed: str, is_enough: bool
) -> None:
    model = in_canary()
    assert missing_evidence(model)
    model.take_progress(progress(statuses=statuses, needed=needed), 5)
    assert (not missing_evidence(model)) is is_enough


def test_history_is_told_in_pages_newest_first() -> None:
    model = ReadModel()
    for epoch in range(1, 8):
        model.take_decision(decision(epoch, "bake_end"), epoch)
    first = history_view(model, limit=3, before=None)
    assert [each.epoch for each in first.decisions] == [7, 6, 5]
    second = history_view(model, limit=5, before=first.before)
    assert [each.epoch for each in second.decisions] == [4, 3, 2, 1]
    assert second.before is None


def test_an_examination_is_shown_limit_by_limit() -> None:
    model = ReadModel()
    rows = [{"name": "pass_rate", "line": "QA pass_rate: 40 of 40 >= 27"}]
    model.take_decision(decision(5, "reject", evidence={"qa": {"rows": rows}}), 5)
    assert qa_view(model).rows == tuple(rows)


def test_a_process_that_falls_silent_is_forgotten() -> None:
    from schemas.readiness import Readiness

    model = ReadModel()
    model.take_readiness(Readiness(worker="router-0", service="router", epoch=1, applied_at_us=0, at=NOW))
    model.forget_silent(now_ms=NOW + 29_000, after_ms=30_000)
    assert model.workers
    model.forget_silent(now_ms=NOW + 31_000, after_ms=30_000)
    assert not model.workers


def test_an_ended_canary_shows_the_gates_it_was_ended_on() -> None:
    """The deciding window makes a decision, and no progress record."""
    series = GateSeries(CANDIDATE, decision())
    series.add(progress())
    (ended,) = (each for each in logged("abort_by_early_stop") if each.kind == "abort")
    series.end(ended)
    assert series.last is not None
    shown = {gate.name: gate for gate in series.last.gates}
    assert shown["abort:early_stop"].status == "breached"
    assert "300" in shown["abort:error_margin"].line
    assert series.points[-1].at == ended.decided_at
    assert series.points[-1].gates["abort:error_margin"].n == 300


@pytest.mark.parametrize(
    "history", sorted({path.name.split(".")[0] for path in GOLDEN.glob("*.decisions.jsonl")})
)
def test_every_verdict_that_was_ever_logged_can_be_shown(history: str) -> None:
    for each in logged(history):
        series = GateSeries(CANDIDATE, decision())
        series.add(progress())
        series.end(each)
        assert series.last is not None
        assert series.last.gates


def logged(history: str) -> list[Decision]:
    lines = (GOLDEN / f"{history}.decisions.jsonl").read_text(encoding="utf-8").splitlines()
    return [Decision.model_validate_json(line) for line in lines]


def test_the_status_changes_with_whatever_waits_for_a_person() -> None:
    model = in_canary()

    def waiting() -> dict[str, Any]:
        return status_view(model, now_ms=NOW, caught_up=True).waiting.model_dump()

    assert waiting() == {"approval": None, "forced": None, "feedback": 0}
    for _ in range(KEPT_REVIEWS + 1):
        model.take_quarantined(
            QuarantinedFeedback.model_validate(example("feedback.quarantine/v1/injection.json"))
        )
    assert waiting()["feedback"] == KEPT_REVIEWS + 1
    model.take_progress(
        progress(statuses={"promote:error_margin": "cleared"}, needed="an approver has to agree"), 6
    )
    assert waiting()["approval"] == CANDIDATE
    said = {
        "at": NOW,
        "actor": "anna",
        "via": "api",
        "action": "promote",
        "result": "accepted",
        "detail": f"{WAITS_FOR_ANOTHER} to skip the gates [{'5' * 32}]",
    }
    model.take_audit(AuditEntry.model_validate(said))
    assert waiting()["forced"] == {"actor": "anna", "release": CANDIDATE, "at": NOW}


def test_a_release_shows_what_it_kept_of_each_earlier_update() -> None:
    matrix = forgetting_matrix(
        {
            "law": {
                "forgetting": [{"update": ACTIVE, "rows": 32, "before": 0.92, "after": 0.75}],
                "general_exact_match_before": 0.7,
                "general_exact_match_after": 0.7,
            }
        }
    )
    value = example("releases/v1/candidate.json")
    value["evidence"]["metrics"]["forgetting"] = [*(row.to_json() for row in matrix), {"not": "ours"}]
    model = ReadModel()
    model.take_proposal(ReleaseProposed.model_validate(value))
    (shown,) = release_views(model, {})
    assert [
        (row.domain, row.knowledge, row.before, row.after, row.untouched) for row in shown.forgetting
    ] == [(row.domain, row.knowledge, row.before, row.after, row.is_untouched) for row in matrix]
    law = next(row for row in shown.forgetting if row.knowledge == f"update {ACTIVE}")
    assert (law.domain, law.rows, law.before, law.after) == ("law", 32, 0.92, 0.75)


def test_a_release_without_a_matrix_shows_none() -> None:
    model = ReadModel()
    model.take_proposal(ReleaseProposed.model_validate(example("releases/v1/candidate.json")))
    (shown,) = release_views(model, {})
    assert shown.forgetting == ()
