"""Which rows meet in one training step: new ones, rehearsed ones and what the foundation must keep. Pure and seeded."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.trainer.learning.dataset import Example
from services.trainer.learning.settings import LearningSettings


@dataclass(frozen=True)
class Rows:
    """Rendered rows of one origin, apart by whether they show a passage."""

    closed: tuple[Example, ...] = ()
    grounded: tuple[Example, ...] = ()

    def __len__(self) -> int:
        return len(self.closed) + len(self.grounded)


NO_ROWS = Rows()


@dataclass(frozen=True)
class Step:
    """One step's examples; the two kinds differ in length and go through the model apart."""

    closed: tuple[Example, ...]
    grounded: tuple[Example, ...]


def steps(new: Rows, replay: Rows, general: Rows, *, settings: LearningSettings, seed: int) -> Iterator[Step]:
    """Endless steps; every pool is walked in shuffled passes, so that no row waits longer than two passes."""
    plan = _plan(new, replay, general, settings)
    walks = [(_walk(pool, f"{seed}/{number}"), count) for number, (pool, count) in enumerate(plan)]
    while True:
        drawn = [[next(walk) for _ in range(count)] for walk, count in walks]
        yield Step(
            closed=tuple(example for rows in drawn[0::2] for example in rows),
            grounded=tuple(example for rows in drawn[1::2] for example in rows),
        )


def _plan(
    new: Rows, replay: Rows, general: Rows, settings: LearningSettings
) -> list[tuple[Sequence[Example], int]]:
    """(pool, rows per step), closed and grounded in turn, for new, replay and general.

    A step never holds a row twice only to be full, and long rows make it shorter: then every origin shrinks alike, and
    the proportions stay.
    """
    rehearsed = round(settings.batch_size * settings.replay_share) if len(replay) else 0
    plan: list[tuple[Sequence[Example], int]] = []
    for rows, count in ((new, settings.batch_size - rehearsed), (replay, rehearsed)):
        grounded = _grounded_count(rows, count, settings.grounded_share)
        plan += [(rows.closed, count - grounded), (rows.grounded, grounded)]
    plan += [
        (general.closed, settings.general_closed if general.closed else 0),
        (general.grounded, settings.general_grounded if general.grounded else 0),
    ]
    scale = min(1.0, _fill(plan[:2]), settings.tokens_per_step / max(1.0, _tokens(plan)))
    return [(pool, min(len(pool), max(1, round(count * scale))) if count else 0) for pool, count in plan]


def _fill(plan: Sequence[tuple[Sequence[Example], int]]) -> float:
    """The share of the planned rows that are there."""
    planned = sum(count for _, count in plan)
    return sum(min(len(pool), count) for pool, count in plan) / planned if planned else 1.0


def _tokens(plan: Sequence[tuple[Sequence[Example], int]]) -> float:
    """Tokens that a step of this plan has on average."""
    return sum(
        count * statistics.fmean(len(example.tokens) for example in pool) for pool, count in plan if count
    )


def _grounded_count(rows: Rows, count: int, share: float) -> int:
    if not rows.grounded:
        return 0
    return count if not rows.closed else round(count * share)


def _walk(pool: Sequence[Example], seed: str) -> Iterator[Example]:
    source = random.Random(seed)
    while True:
        order = list(range(len(pool)))
        source.shuffle(order)
        for index in order:
            yield pool[index]
