"""Trainings that come to nothing: what is the rows' fault ends with them, what is not costs nobody a row."""

from __future__ import annotations

from tests.integration.trainer.conftest import MakeBench


def test_a_damaged_artifact_leaves_the_rows_waiting_and_counts_no_attempt(make_bench: MakeBench) -> None:
    bench = make_bench(trainer={"job": {"learning": {"fail_with": 3}}})
    bench.genesis()
    bench.start()
    given = [bench.feedback(n, f"Seat of contract Velmo{n}?", f"Oslo [law-{n:04d}]") for n in range(4)]
    bench.give(*given)

    bench.wait(lambda: True if '"event": "training_blocked"' in bench.log else None, timeout_s=60)

    bench.wait_status({item.id: "accepted" for item in given})
    assert bench.quarantined() == []
    assert '"event": "training_failed"' not in bench.log


def test_a_run_that_breaks_what_nobody_foresaw_is_given_up_and_the_trainer_lives(
    make_bench: MakeBench,
) -> None:
    # More digits than canonical JSON can hold.
    bench = make_bench(trainer={"job": {"learning": {"steps_digits": 30}}})
    bench.genesis()
    process = bench.start()
    given = [bench.feedback(n, f"Seat of contract Velmo{n}?", f"Oslo [law-{n:04d}]") for n in range(4)]
    bench.give(*given)

    statuses = bench.wait_status({item.id: "quarantined" for item in given})

    assert (statuses["fb-0000"].reason or "").startswith("training_failed:unexpected ")
    assert bench.log.count('"event": "training_failed"') == 2
    assert process.poll() is None
