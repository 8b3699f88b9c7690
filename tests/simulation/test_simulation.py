"""Thousands of small histories of the shipped decisions; each planted bug is caught.

TWINLOOP_SEED=n runs one history again, TWINLOOP_SEEDS=n that many (10,000 in the slow run).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.plants import Plants
from tests.simulation.processes import Broken
from tests.simulation.simulator import run_seed

QUICK_SEEDS = int(os.environ.get("TWINLOOP_SEEDS", "500"))
ALL_SEEDS = 10_000


def seeds(count: int) -> range:
    one = os.environ.get("TWINLOOP_SEED")
    return range(count) if one is None else range(int(one), int(one) + 1)


def test_no_history_breaks_an_invariant() -> None:
    for seed in seeds(QUICK_SEEDS):
        run_seed(seed)


def run_seeds(numbers: Sequence[int]) -> None:
    for seed in numbers:
        run_seed(seed)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_ten_thousand_histories_break_no_invariant() -> None:
    numbers = seeds(ALL_SEEDS)
    shares = [numbers[start : start + 250] for start in range(0, len(numbers), 250)]
    # Fresh processes, as a fork of one that has run a Kafka client may hang.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(run_seeds, share) for share in shares]:
            done.result()


@pytest.mark.parametrize("plant", Plants.names())
def test_a_planted_bug_is_caught_within_a_thousand_histories(plant: str) -> None:
    plants = Plants(**{plant: True})
    for seed in range(1_000):
        try:
            run_seed(seed, plants)
        except Broken:
            return
    pytest.fail(f"{plant} broke no invariant in 1,000 histories")


def test_a_history_is_the_same_every_time() -> None:
    def broken_by(plants: Plants) -> str:
        for seed in range(1_000):
            try:
                run_seed(seed, plants)
            except Broken as broken:
                return str(broken)
        return ""

    assert broken_by(Plants(no_fence=True)) == broken_by(Plants(no_fence=True)) != ""
