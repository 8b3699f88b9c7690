"""While too much of a topic waits, it is not read."""

from __future__ import annotations

from tests.integration.trainer.conftest import MakeBench
from tests.integration.trainer.harness import TrainerBench


def corrections(bench: TrainerBench, numbers: range) -> list[str]:
    given = [bench.feedback(n, f"Seat of contract Velmo{n}?", f"Oslo [law-{n:04d}]") for n in numbers]
    bench.give(*given)
    return [item.id for item in given]


def order(bench: TrainerBench, action: str, number: int, **parameters: str) -> None:
    """Returns when the trainer has read the order, the number-th of all."""
    bench.command(action, f"order-{number}", **parameters)
    bench.wait(lambda: True if bench.log.count('"event": "command"') == number else None, timeout_s=60)


def test_a_trainer_that_starts_with_too_much_waiting_reads_more_only_when_there_is_room(
    make_bench: MakeBench,
) -> None:
    # Polls so short that the bound is looked at before any partition is assigned.
    options = {"poll_timeout_s": 0.005, "max_pending_rows": 4, "schedule": {"min_rows": 100}}
    bench = make_bench(trainer=options)
    bench.genesis()
    process = bench.start()
    bench.wait_status(dict.fromkeys(corrections(bench, range(4)), "accepted"))
    bench.terminate(process)

    bench.start()
    order(bench, "pause", 1, what="training")  # its partitions are assigned by now
    later = corrections(bench, range(4, 8))
    order(bench, "resume", 2, what="training")
    order(bench, "pause", 3, what="training")
    order(bench, "resume", 4, what="training")
    assert set(later).isdisjoint(bench.statuses())

    order(bench, "train", 5, domain="law")
    bench.wait_status(dict.fromkeys(later, "accepted"))
