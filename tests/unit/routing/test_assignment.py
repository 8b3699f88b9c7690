from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.routing.states import A, B, canary, mirror, state
from twinloop.routing.assignment import Assigner, assign, bucket_of, mirror_assignment, mirrored, unit_of

subjects = st.text(min_size=1, max_size=40)
SUBJECTS = [f"user-{number}" for number in range(20_000)]


def test_without_a_canary_everybody_is_answered_by_the_active_slot() -> None:
    for subject in SUBJECTS[:200]:
        found = assign(state(7), subject)
        assert (found.slot, found.arm, found.release, found.epoch) == ("blue", "active", A, 7)
        assert 0 <= found.bucket < 10_000


@given(subjects, st.integers(1, 999))
def test_a_ramp_only_adds_subjects(subject: str, basis_points: int) -> None:
    before = assign(state(canary=canary(basis_points)), subject)
    after = assign(state(canary=canary(basis_points + 1)), subject)
    assert before.bucket == after.bucket
    assert not (before.arm == "shadow" and after.arm == "active")


@given(subjects)
def test_the_arm_follows_from_the_bucket_alone(subject: str) -> None:
    found = assign(state(canary=canary(500)), subject)
    assert (found.arm == "shadow") == (found.bucket < 500)
    assert (found.slot, found.release) == (("green", B) if found.arm == "shadow" else ("blue", A))


@given(subjects)
def test_opting_out_keeps_a_subject_on_the_active_slot_with_the_same_bucket(subject: str) -> None:
    shared = state(canary=canary(1000))
    out = assign(shared, subject, opt_out=True)
    assert out.arm == "active"
    assert out.bucket == assign(shared, subject).bucket


def test_shares_are_within_four_standard_deviations() -> None:
    for basis_points in (100, 500, 1000):
        share = basis_points / 10_000
        hits = sum(
            assign(state(canary=canary(basis_points)), subject).arm == "shadow" for subject in SUBJECTS
        )
        deviation = math.sqrt(len(SUBJECTS) * share * (1 - share))
        assert abs(hits - len(SUBJECTS) * share) < 4 * deviation


def test_two_salts_choose_independently() -> None:
    first = {subject for subject in SUBJECTS if bucket_of("salt-one-of-them", subject) < 1000}
    second = {subject for subject in SUBJECTS if bucket_of("salt-two-of-them", subject) < 1000}
    expected = len(SUBJECTS) * 0.01
    assert abs(len(first & second) - expected) < 4 * math.sqrt(expected)


def test_buckets_are_uniform() -> None:
    counts = [0] * 100
    for subject in SUBJECTS:
        counts[bucket_of("salt-of-buckets", subject) // 100] += 1
    expected = len(SUBJECTS) / 100
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    assert abs(chi_square - 99) / math.sqrt(2 * 99) < 4


def test_assignment_is_the_same_on_every_machine() -> None:
    """Golden values: changing them re-shuffles every running canary."""
    assert bucket_of("salt", "user-1") == 2673
    assert unit_of("user-1", key="0" * 32) == "92dcce765bed9e16"


def test_a_unit_does_not_depend_on_the_canary_and_names_nobody() -> None:
    found = assign(state(canary=canary(100)), "alice")
    assert found.unit == assign(state(canary=canary(900, "another-salt-here")), "alice").unit
    assert "alice" not in found.unit
    assert found.unit != unit_of("alice", key="f" * 32)


def test_mirrored_copies_go_to_the_shadow_by_the_mirror_s_own_salt() -> None:
    everybody = state(mirror=mirror(10_000))
    assert all(mirrored(everybody, subject) == "green" for subject in SUBJECTS[:100])
    some = state(mirror=mirror(2_500))
    hits = sum(mirrored(some, subject) is not None for subject in SUBJECTS)
    assert abs(hits - 5_000) < 4 * math.sqrt(20_000 * 0.25 * 0.75)
    copy = mirror_assignment(everybody, "alice")
    assert copy is not None
    assert (copy.slot, copy.arm, copy.release) == ("green", "shadow", B)


@pytest.mark.parametrize("changes", [{}, {"mirror": mirror(), "revoked": (B,)}])
def test_nothing_is_mirrored_without_a_mirror_or_to_a_revoked_release(changes: dict[str, object]) -> None:
    assert mirrored(state(**changes), "alice") is None
    assert mirror_assignment(state(**changes), "alice") is None


@given(st.text(min_size=1, max_size=40), st.booleans(), st.booleans())
def test_the_assigner_of_a_batch_says_what_assign_says(subject: str, opt_out: bool, has_canary: bool) -> None:
    found = state(3, canary=canary(1000)) if has_canary else state(3)
    assigner, expected = Assigner(found), assign(found, subject, opt_out=opt_out)
    ((bucket, unit),) = assigner.places([subject])
    assert (bucket, unit) == (expected.bucket, expected.unit)
    assert assigner.arm(bucket, opt_out=opt_out) == expected.arm
