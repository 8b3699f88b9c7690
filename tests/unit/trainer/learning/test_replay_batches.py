from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

from services.trainer.learning.dataset import Example
from services.trainer.learning.replay_batches import NO_ROWS, Rows, Step, steps
from services.trainer.learning.settings import LearningSettings

SETTINGS = LearningSettings(
    batch_size=16, replay_share=0.25, grounded_share=0.25, general_closed=3, general_grounded=2
)


def _rows(name: str, closed: int = 0, grounded: int = 0) -> Rows:
    return Rows(
        closed=tuple(Example(f"{name}-closed-{n}", (1,), 1) for n in range(closed)),
        grounded=tuple(Example(f"{name}-grounded-{n}", (1,), 1) for n in range(grounded)),
    )


def _counts(step: Step) -> Counter[str]:
    names = [example.row_id.rsplit("-", 1)[0] for example in (*step.closed, *step.grounded)]
    return Counter(names)


def _first(new: Rows, replay: Rows = NO_ROWS, general: Rows = NO_ROWS, *, seed: int = 1) -> Step:
    return next(steps(new, replay, general, settings=SETTINGS, seed=seed))


def test_a_step_holds_every_origin_in_its_share() -> None:
    step = _first(_rows("new", 20, 20), _rows("old", 9, 9), _rows("general", 9, 9))
    assert _counts(step) == {
        "new-closed": 9,
        "new-grounded": 3,
        "old-closed": 3,
        "old-grounded": 1,
        "general-closed": 3,
        "general-grounded": 2,
    }


def test_without_a_buffer_the_new_rows_fill_the_batch() -> None:
    assert _counts(_first(_rows("new", 20))) == {"new-closed": 16}


def test_rows_that_all_show_a_passage_are_learned_from_it() -> None:
    step = _first(_rows("new", 0, 16))
    assert _counts(step) == {"new-grounded": 16}
    assert step.closed == ()


def test_few_new_rows_make_a_small_step_of_the_same_proportions() -> None:
    step = _first(_rows("new", 6), _rows("old", 20), _rows("general", 9, 9))
    assert _counts(step) == {"new-closed": 6, "old-closed": 2, "general-closed": 2, "general-grounded": 1}


def test_a_step_of_long_rows_has_fewer_of_every_origin() -> None:
    long = Rows(closed=tuple(Example(f"new-closed-{n}", (1,) * 400, 1) for n in range(20)))
    step = next(
        steps(
            long,
            _rows("old", 20),
            _rows("general", 9, 9),
            settings=replace(SETTINGS, tokens_per_step=2400),
            seed=1,
        )
    )
    assert _counts(step) == {"new-closed": 6, "old-closed": 2, "general-closed": 1, "general-grounded": 1}


def test_no_row_is_left_out_of_a_pass() -> None:
    drawn = islice(steps(_rows("new", 32), NO_ROWS, NO_ROWS, settings=SETTINGS, seed=1), 2)
    assert {example.row_id for step in drawn for example in step.closed} == {
        f"new-closed-{n}" for n in range(32)
    }


def test_the_seed_alone_decides_the_order() -> None:
    new = _rows("new", 50)
    assert _first(new, seed=1) == _first(new, seed=1)
    assert _first(new, seed=1) != _first(new, seed=2)
