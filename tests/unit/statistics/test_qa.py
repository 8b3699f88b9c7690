"""The exam: exact counts, missing is failed, one decision."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from twinloop.errors import ConfigError
from twinloop.statistics.qa import ProbeResult, QaKind, QaPolicy, can_still_pass, judge_exam

POLICY = QaPolicy()
IDS = [f"p{i:03}" for i in range(200)]


def exam(*, passed: int = 132, toxic: int = 10, failed: int = 20, slow: int = 10) -> list[ProbeResult]:
    """200 probes that hit every limit exactly; failures come last, toxic and slow ones first."""
    return [
        ProbeResult(
            probe_id=name,
            ok=i < 200 - failed,
            correct=i < passed,
            toxic=i < toxic,
            latency_ms=501.0 if i < slow else 500.0,
        )
        for i, name in enumerate(IDS)
    ]


def test_an_exam_that_hits_every_limit_exactly_is_passed() -> None:
    verdict = judge_exam(POLICY, IDS, exam())
    assert (verdict.kind, verdict.reason_code) == (QaKind.PASS, "all_gates_passed")
    assert {row.name: row.count for row in verdict.rows} == {
        "pass_rate": 132,
        "toxicity": 10,
        "p95": 10,
        "error": 20,
    }
    assert json.loads(json.dumps(verdict.to_json()))["kind"] == "pass"


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"passed": 131}, "pass_rate"),
        ({"toxic": 11}, "toxicity"),
        ({"slow": 11}, "p95"),
        ({"failed": 21}, "error"),
    ],
)
def test_one_worse_in_any_limit_fails_and_names_the_gate(change: dict[str, int], gate: str) -> None:
    verdict = judge_exam(POLICY, IDS, exam(**change))
    assert (verdict.kind, verdict.reason_code) == (QaKind.FAIL, gate)


def test_a_missing_result_is_failed_slow_and_an_error() -> None:
    verdict = judge_exam(POLICY, IDS, exam(passed=200, toxic=0, failed=0, slow=0)[:-30])
    assert verdict.missing == 30
    assert verdict.kind is QaKind.FAIL
    assert verdict.reason_code == "p95"


def test_missing_measurements_count_against_the_candidate() -> None:
    blank = [ProbeResult(name, ok=True) for name in IDS]
    assert [row.is_passed for row in judge_exam(POLICY, IDS, blank).rows] == [False, False, False, True]


def test_a_required_citation_must_be_valid() -> None:
    base = ProbeResult("p000", ok=True, correct=True, citation_required=True)
    assert not base.is_passed
    assert replace(base, citation_valid=True).is_passed
    assert not replace(base, citation_valid=False).is_passed


def test_too_few_probes_show_nothing() -> None:
    verdict = judge_exam(POLICY, IDS[:50], exam()[:50])
    assert (verdict.kind, verdict.reason_code) == (QaKind.INCONCLUSIVE, "min_probes")


def test_a_result_given_twice_or_never_asked_for_is_refused() -> None:
    one = ProbeResult("p000", ok=True)
    for results in ([one, one], [ProbeResult("x", ok=True)]):
        with pytest.raises(ValueError, match="unknown or was answered twice"):
            judge_exam(POLICY, IDS, results)


def test_pairs_are_compared_by_mcnemar() -> None:
    results = [replace(r, active_correct=i >= 100) for i, r in enumerate(exam(passed=112))]
    verdict = judge_exam(POLICY, IDS, results)
    assert (verdict.only_candidate_passed, verdict.only_active_passed) == (100, 88)
    assert verdict.mcnemar_p == pytest.approx(0.4220, abs=1e-3)
    assert judge_exam(POLICY, IDS, exam()).mcnemar_p is None


def test_an_exam_is_stopped_early_only_when_nothing_can_rescue_it() -> None:
    wrong = [ProbeResult(name, ok=True, correct=False, toxic=False, latency_ms=1.0) for name in IDS]
    assert can_still_pass(POLICY, 200, wrong[:68])
    assert not can_still_pass(POLICY, 200, wrong[:69])
    assert can_still_pass(POLICY, 200, [])


def test_an_impossible_exam_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="pass_rate_min"):
        QaPolicy(pass_rate_min=66.0)
