from __future__ import annotations

import random

from services.trainer.core.input_drift import QuestionWindow, input_shift, note_question, rebase

LAW = ("contract", "tenant", "court", "appeal", "lease", "statute", "penalty", "notice", "breach", "damages")
TAX = ("invoice", "revenue", "margin", "dividend", "ledger", "audit", "coupon", "broker", "equity", "bond")


def _ask(window: QuestionWindow, words: tuple[str, ...], count: int, seed: int, *, size: int = 100) -> None:
    chance = random.Random(seed)
    for _ in range(count):
        note_question(window, f"What is the {' '.join(chance.sample(words, 4))}?", size=size)


def test_the_same_kind_of_question_is_no_drift_and_another_kind_is() -> None:
    window = QuestionWindow()
    _ask(window, LAW, 100, 1)
    _ask(window, LAW, 50, 2)
    same = input_shift(window, least=50)
    _ask(window, TAX, 100, 3)
    other = input_shift(window, least=50)

    assert same is not None
    assert same < 0.1
    assert other is not None
    assert other > 0.5


def test_too_few_questions_say_nothing() -> None:
    window = QuestionWindow()
    _ask(window, LAW, 99, 1)
    assert input_shift(window, least=50) is None, "there is no reference yet"
    _ask(window, LAW, 1, 1)
    _ask(window, TAX, 49, 2)
    assert input_shift(window, least=50) is None


def test_after_a_training_for_it_the_new_kind_is_the_reference() -> None:
    window = QuestionWindow()
    _ask(window, LAW, 100, 1)
    _ask(window, TAX, 60, 2)
    rebase(window)
    _ask(window, TAX, 60, 3)

    shift = input_shift(window, least=50)

    assert shift is not None
    assert shift < 0.1


def test_no_word_is_kept_and_the_window_is_bounded() -> None:
    window = QuestionWindow()
    _ask(window, LAW, 500, 1, size=100)
    _ask(window, TAX, 500, 2, size=100)

    assert len(window.recent) == 100
    assert "contract" not in window.model_dump_json()
    assert QuestionWindow.model_validate_json(window.model_dump_json()) == window
