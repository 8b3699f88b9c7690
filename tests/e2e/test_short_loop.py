"""The loop once, on the embedded profile: taught by users, examined, promoted, rolled back."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.demo.run import DemoPlan, run_demo

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    plan = DemoPlan(output=Path(tmp_path_factory.mktemp("demo")), quick=True)
    return run_demo(plan, print).document


def test_every_query_is_answered_exactly_once(report: dict[str, object]) -> None:
    assert (report["lost"], report["duplicates"], report["dead_letters"]) == (0, 0, 0)


def test_the_decisions_are_those_of_one_good_candidate(report: dict[str, object]) -> None:
    decisions = report["decisions"]
    assert isinstance(decisions, list)
    kinds = [each["kind"] for each in decisions if each["kind"] not in ("ramp", "bake_end")]
    assert kinds == ["genesis", "stage", "canary", "promote", "rollback"]
    assert [each["epoch"] for each in decisions] == list(range(1, len(decisions) + 1))


def test_what_users_taught_is_answered_until_it_is_rolled_back(report: dict[str, object]) -> None:
    before, after = report["accuracy_before"], report["accuracy_after"]
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after - before >= 0.3
    assert report["accuracy_after_rollback"] == before
    adapter = report["accuracy_adapter_only"]
    assert isinstance(adapter, dict)
    assert adapter["after"] - adapter["before"] >= 0.3


def test_a_rollback_restores_release_and_answers_bit_for_bit(report: dict[str, object]) -> None:
    assert report["rollback_digests_equal"] is True
    assert report["rollback_probe_answers_equal"] is True
