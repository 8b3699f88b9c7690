from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from twinloop.foundation_training.corpus import ABSTENTION, bank
from twinloop.foundation_training.samples import MAIN_MIX, Mix, Sample, sibling, stream

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


@pytest.mark.parametrize("kind", ["wrong_passage", "foreign_passage", "unknown_entity", "foreign_question"])
def test_what_no_source_holds_is_answered_by_abstaining(kind: str) -> None:
    assert {sample.answer for sample in draw(kind)} == {ABSTENTION}


def test_a_sibling_never_states_what_is_asked() -> None:
    random = Random(6)
    for fact in bank():
        other = sibling(random, fact, bank())
        assert (other.entity, other.attribute) != (fact.entity, fact.attribute)
        assert other.kind == fact.kind
