from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from twinloop.foundation_training.corpus import ABSTENTION, bank
from twinloop.foundation_training.samples import MAIN_MIX, Mix, Sample, sibling, stream
from twinloop.foundation_training.vocabulary import DOMAINS, KINDS

ONLY = {name: Mix(**{other: float(other == name) for other in vars(MAIN_MIX)}) for name in vars(MAIN_MIX)}


def draw(kind: str, n: int = 200) -> list[Sample]:
    return list(islice(stream(Random(5), bank(), ONLY[kind]), n))


def test_the_same_seed_draws_the_same_samples() -> None:
    first, second = (list(islice(stream(Random(1), bank(), MAIN_MIX), 300)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["grounded", "two_passages"])
def test_an_answer_with_a_passage_is_found_in_the_passage(kind: str) -> None:
    for sample in draw(kind):
        value, citation = sample.answer.split(" [")
        assert sample.passage is not None
        assert value in sample.passage
        assert f"[{citation}" in sample.passage


def test_a_wrong_passage_is_about_another_kind_of_thing() -> None:
    for sample in draw("wrong_passage"):
        kinds = {kind for domain in DOMAINS for kind in KINDS[domain]}
        assert sample.passage is not None
        asked, told = (words_of(text) & kinds for text in (sample.question, sample.passage))
        assert asked != told


def words_of(text: str) -> set[str]:
    return set(text.lower().replace(":", " ").replace(",", " ").split())


def test_closed_book_answers_come_from_the_bank_alone() -> None:
    known = {(question, fact.answer()) for fact in bank() for question in fact.questions()}
    assert all(
        sample.passage is None and (sample.question, sample.answer) in known for sample in draw("closed_book")
    )


@pytest.mark.parametrize("kind", ["wrong_passage", "foreign_passage", "unknown_entity", "foreign_question"])
def test_what_no_source_holds_is_answered_by_abstaining(kind: str) -> None:
    assert {sample.answer for sample in draw(kind)} == {ABSTENTION}


def test_a_sibling_never_states_what_is_asked() -> None:
    random = Random(6)
    for fact in bank():
        other = sibling(random, fact, bank())
        assert (other.entity, other.attribute) != (fact.entity, fact.attribute)
        assert other.kind == fact.kind
