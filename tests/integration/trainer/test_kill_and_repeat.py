"""A trainer killed at any moment does the same again: same dataset, same adapter, every feedback trained once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest

from schemas.releases import ReleaseProposed
from services.trainer.checkpoint import read_checkpoint
from services.trainer.child_process import WarmProcess
from services.trainer.core.dataset import REPLAY, ROWS, blob_digests, training_material
from services.trainer.learning_job import LearningJobs, Lesson
from tests.fixtures.brokers import KafkaUnderTest
from tests.integration.trainer.conftest import MakeBench
from tests.integration.trainer.harness import TrainerBench
from twinloop.foundation_training.corpus import World

SLOW_JOB = {"job": {"learning": {"seconds": 0.6}}, "schedule": {"min_rows": 12}}
PLACES = ("Oslo", "Lima", "Porto", "Kyoto", "Turin", "Accra", "Perth", "Quito")


def corrections(bench: TrainerBench, numbers: range) -> list[str]:
    given = [
        bench.feedback(
            n, f"What is the arbitration seat of contract Velmo{n}?", f"{PLACES[n % 8]} [law-{n:04d}]"
        )
        for n in numbers
    ]
    bench.give(*given)
    return [item.id for item in given]


def test_kills_at_random_moments_change_neither_dataset_nor_adapter_nor_what_is_told(
    make_bench: MakeBench,
) -> None:
    killed_at_random_moments(make_bench(trainer=SLOW_JOB))


@pytest.mark.faults
@pytest.mark.kafka
def test_kills_at_random_moments_on_a_real_broker_change_nothing_either(
    make_bench: MakeBench, kafka: KafkaUnderTest
) -> None:
    killed_at_random_moments(make_bench(trainer=SLOW_JOB, kafka=kafka))


def killed_at_random_moments(bench: TrainerBench) -> None:
    bench.genesis()
    rng = random.Random(42)
    ids = corrections(bench, range(12))
    moments = []
    for _ in range(8):
        process = bench.start()
        moment = rng.uniform(0.9, 3.2)  # from before the first poll to after the proposal
        time.sleep(moment)
        bench.kill(process)
        moments.append(round(moment, 2))
    bench.start()
    proposed = bench.proposal()
    every = bench.proposals()
    assert {item.release_id for item in every} == {proposed.release_id}, moments
    assert {item.evidence.dataset for item in every} == {proposed.evidence.dataset}
    assert len({item.model_dump_json() for item in every}) == 1, (
        "a repeated proposal is the same, byte for byte"
    )
    assert proposed.evidence.feedback_ids == tuple(ids)

    bench.decide("promote", proposed.release_id, about=proposed.release_id)
    bench.wait_status(dict.fromkeys(ids, "trained"))
    bench.terminate(bench.processes[-1])
    checkpoint = read_checkpoint(bench.settings.checkpoint_file)
    assert checkpoint is not None
    assert checkpoint.state.pending == {}
    assert sorted(checkpoint.state.buffers["law"].rows) == ids
    rows = Counter(row["id"] for row in bench.dataset_rows(proposed.release_id))
    assert rows == dict.fromkeys(ids, 1)


def test_an_undisturbed_trainer_makes_the_same_release_as_a_killed_one(make_bench: MakeBench) -> None:
    bench = make_bench(trainer={"job": {"learning": {"seconds": 0.5}}})
    bench.genesis()
    corrections(bench, range(4))
    process = bench.start()
    undisturbed = bench.proposal()
    bench.terminate(process)

    # The same log read again from nothing, as after the loss of the state folder, and killed on the way.
    bench.settings.checkpoint_file.unlink()
    for moment in (1.2, 1.8):
        process = bench.start()
        time.sleep(moment)
        bench.kill(process)
    bench.start()
    bench.wait(lambda: True if len(bench.proposals()) > 1 else None, timeout_s=60)

    assert {item.evidence.dataset for item in bench.proposals()} == {undisturbed.evidence.dataset}
    assert {item.release_id for item in bench.proposals()} == {undisturbed.release_id}


def test_a_lost_checkpoint_is_made_again_and_nothing_is_taught_twice(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.genesis()
    process = bench.start()
    ids = corrections(bench, range(4))
    first = bench.proposal(1)
    bench.decide("promote", first.release_id, about=first.release_id)
    bench.wait_status(dict.fromkeys(ids, "trained"))
    bench.kill(process)
    bench.settings.checkpoint_file.unlink()

    bench.start()
    later = corrections(bench, range(4, 8))
    second = bench.proposal(2)

    assert second.evidence.feedback_ids == tuple(later)
    assert second.release.parent == first.release_id
    assert {bench.statuses()[name].status for name in ids} == {"trained"}


def test_a_checkpoint_of_a_log_that_is_gone_is_set_aside(make_bench: MakeBench) -> None:
    old = make_bench()
    old.genesis()
    process = old.start()
    corrections(old, range(4))
    old.proposal()
    old.terminate(process)
    new = make_bench(incarnation="f" * 32)
    new.settings.checkpoint_file.parent.mkdir(parents=True)
    old.settings.checkpoint_file.rename(new.settings.checkpoint_file)
    new.genesis()

    new.start()
    ids = corrections(new, range(4))

    assert new.proposal().evidence.feedback_ids == tuple(ids)
    assert "checkpoint_of_another_log" in new.log


def test_sigterm_stops_the_child_and_the_training_is_done_by_the_next_process(make_bench: MakeBench) -> None:
    bench = make_bench(trainer={"job": {"learning": {"seconds": 3.0}}})
    bench.genesis()
    process = bench.start()
    ids = corrections(bench, range(4))
    bench.wait_status(dict.fromkeys(ids, "accepted"))
    bench.wait(lambda: True if '"event": "training"' in bench.log else None, timeout_s=20)

    assert bench.terminate(process) == 0
    assert bench.proposals() == []
    bench.start()

    assert bench.proposal().evidence.feedback_ids == tuple(ids)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_training_killed_three_times_gives_the_same_adapter(make_bench: MakeBench) -> None:
    learning = {
        "max_steps": 4,
        "evaluate_every": 4,
        "evaluation_rows": 4,
        "fisher_samples": 2,
        "batch_size": 4,
    }
    options = {
        "job": {
            "module": "services.trainer.learning.job",
            "timeout_s": 300,
            "learning": {**learning, "general_closed": 2, "general_grounded": 1},
        },
        "evidence": {"min_update_exact_match": 0.0, "max_probe_drop": 1.0},
    }
    facts = World.generate(7, "law", 4).facts

    def run(bench: TrainerBench, kills: tuple[float, ...]) -> ReleaseProposed:
        bench.genesis()
        bench.give(*(bench.feedback(n, f.questions()[0], f.answer()) for n, f in enumerate(facts)))
        for moment in kills:
            process = bench.start()
            bench.wait(lambda: True if bench.log.count('"event": "training"') else None, timeout_s=60)
            time.sleep(moment)
            bench.kill(process)
        bench.start()
        return bench.proposal(timeout_s=280)

    disturbed = make_bench(trainer=options)
    proposed = run(disturbed, (2.0, 6.0, 11.0))

    assert _trained_again(disturbed, proposed) == proposed.release.adapters["law"]


def _trained_again(bench: TrainerBench, proposed: ReleaseProposed) -> str:
    """The adapter that the same stored dataset gives in another folder, without any kill."""
    blobs = blob_digests(bench.store.get(proposed.evidence.dataset))
    parent, seed = bench.release(bench.first).release, proposed.evidence.seed
    process = WarmProcess(bench.settings.trainer.job.module, log=bench.folder / "learning.log")
    jobs = LearningJobs(
        bench.store, bench.settings.trainer, artifacts=bench.folder / "elsewhere", process=process
    )
    rows, replay = bench.store.get(blobs[ROWS]), bench.store.get(blobs[REPLAY])
    material = training_material(rows, replay, domain="law", seed=seed)
    learnt = jobs.learn(
        [Lesson("law", material, None, seed)],
        parent,
        folder=bench.folder / "another",
        cancel=threading.Event(),
    )
    return learnt["law"].adapter
