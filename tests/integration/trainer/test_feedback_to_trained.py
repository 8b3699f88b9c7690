"""From feedback to a proposed release, and what a decision about it means for the feedback."""

from __future__ import annotations

import json

from tests.integration.trainer.conftest import MakeBench
from tests.integration.trainer.harness import TrainerBench
from twinloop.canonical import canonical_json

PLACES = ("Oslo", "Lima", "Porto", "Kyoto", "Turin", "Accra", "Perth", "Quito")


def four_corrections(bench: TrainerBench, start: int = 0) -> list[str]:
    """Four facts by four raters; returns the feedback ids."""
    given = [
        bench.feedback(
            n, f"What is the arbitration seat of contract Velmo{n}?", f"{PLACES[n % 8]} [law-{n:04d}]"
        )
        for n in range(start, start + 4)
    ]
    bench.give(*given)
    return [item.id for item in given]


def test_corrections_become_a_signed_release_and_are_told_trained_when_it_is_promoted(
    make_bench: MakeBench,
) -> None:
    bench = make_bench()
    bench.genesis()
    bench.start()
    ids = four_corrections(bench)

    proposed = bench.proposal()

    assert proposed.release.parent == bench.first
    before = bench.release(bench.first).release
    assert proposed.release.adapters["law"] != before.adapters["law"]
    assert proposed.release.adapters["med"] == before.adapters["med"]
    assert proposed.release.indexes == before.indexes
    assert proposed.evidence.feedback_ids == tuple(ids)
    assert proposed.evidence.rows == {"law": 4}
    assert proposed.signed is not None
    unsigned = proposed.model_dump(mode="json")
    unsigned.pop("signed")
    bench.ring.verify(
        canonical_json(unsigned), proposed.signed.signature, proposed.signed.key_id, role="trainer"
    )
    assert {bench.statuses()[name].status for name in ids} == {"accepted"}

    bench.decide("promote", proposed.release_id, about=proposed.release_id)

    statuses = bench.wait_status(dict.fromkeys(ids, "trained"))
    assert {statuses[name].release for name in ids} == {proposed.release_id}


def test_a_rejected_release_quarantines_its_feedback(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.genesis()
    bench.start()
    ids = four_corrections(bench)
    proposed = bench.proposal()

    bench.decide(
        "reject",
        bench.first,
        about=proposed.release_id,
        revoked=[proposed.release_id],
        evidence={"outcome": "failed", "feedback": "quarantine"},
    )

    bench.wait_status(dict.fromkeys(ids, "quarantined"))
    assert {item.feedback.id for item in bench.quarantined()} == set(ids)


def test_feedback_of_a_superseded_release_is_trained_again_on_the_new_parent(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.genesis()
    bench.start()
    first_ids = four_corrections(bench)
    first = bench.proposal(1)
    bench.decide(
        "reject",
        bench.first,
        about=first.release_id,
        evidence={"outcome": "superseded", "feedback": "retrain"},
    )

    second = bench.proposal(2)

    assert second.release_id != first.release_id
    assert second.evidence.feedback_ids == tuple(first_ids)
    bench.decide("promote", second.release_id, about=second.release_id)
    statuses = bench.wait_status(dict.fromkeys(first_ids, "trained"))
    assert {statuses[name].release for name in first_ids} == {second.release_id}


def test_a_rollback_quarantines_what_the_release_left_had_learnt(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.genesis()
    bench.start()
    ids = four_corrections(bench)
    proposed = bench.proposal()
    bench.decide("promote", proposed.release_id, about=proposed.release_id)
    bench.wait_status(dict.fromkeys(ids, "trained"))

    bench.decide("rollback", bench.first, about=bench.first, revoked=[proposed.release_id])

    bench.wait_status(dict.fromkeys(ids, "quarantined"))


def test_the_next_training_of_a_domain_rehearses_what_the_last_one_taught(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.genesis()
    bench.start()
    ids = four_corrections(bench)
    first = bench.proposal(1)
    bench.decide("promote", first.release_id, about=first.release_id)
    bench.wait_status(dict.fromkeys(ids, "trained"))
    four_corrections(bench, start=4)

    second = bench.proposal(2)

    manifest = json.loads(bench.store.get(second.evidence.dataset))
    assert manifest["replay_rows"] == {"law": 4}
    assert second.release.parent == first.release_id
    fisher = second.evidence.metrics["artifacts"]
    assert isinstance(fisher, dict)
    assert set(fisher["fisher"]) == {"law"}  # type: ignore[arg-type]
