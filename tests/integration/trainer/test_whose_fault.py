"""A training that comes to nothing by nobody's rows' fault costs nobody a row."""

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
