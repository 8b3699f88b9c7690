"""The gate before a passage is shown to the model."""

from __future__ import annotations

from twinloop.retrieval.coverage import TermWeights

TEXTS = [
    f"The notice period of contract {name} is {days} days"
    for name, days in (("Zorvan", 42), ("Melko", 7), ("Tirado", 9))
]
TERMS = TermWeights.of(TEXTS)


def test_the_right_passage_covers_the_question_whatever_its_phrasing() -> None:
    for question in ("What is the notice period of contract Zorvan?", "Contract Zorvan: what notice period?"):
        assert TERMS.coverage(question, TEXTS[0]) == 1.0


def test_a_passage_about_a_sibling_lacks_the_name_that_matters() -> None:
    assert TERMS.coverage("What is the notice period of contract Unheard?", TEXTS[0]) < 0.7


def test_rare_words_weigh_more_than_common_ones() -> None:
    assert TERMS.weight("zorvan") > TERMS.weight("contract")
    assert TERMS.weight("unheard") > TERMS.weight("zorvan")


def test_a_question_of_function_words_covers_nothing() -> None:
    assert TERMS.coverage("What is it that you have?", TEXTS[0]) == 0.0
