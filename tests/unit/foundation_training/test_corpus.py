from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.foundation_training.corpus import (
    HELD_OUT_PHRASINGS,
    STATEMENTS,
    UPDATE_PHRASINGS,
    World,
    bank,
    closed_book_prompt,
    rag_prompt,
)
from twinloop.foundation_training.vocabulary import DOMAINS, KINDS, domain_keywords


def test_the_same_seed_draws_the_same_world() -> None:
    assert World.generate(7, "law", 20) == World.generate(7, "law", 20)
    assert World.generate(7, "law", 20) != World.generate(8, "law", 20)


def test_the_bank_is_the_one_the_shipped_weights_were_trained_on() -> None:
    facts = bank()
    assert len(facts) == 128
    assert {domain: sum(fact.domain == domain for fact in facts) for domain in DOMAINS} == dict.fromkeys(
        DOMAINS, 32
    )
    assert facts[0].statement() == "The objection window of tribunal Tisvel is 3 weeks [law-4636]"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), domain=st.sampled_from(DOMAINS), n=st.integers(0, 40))
def test_no_world_ever_meets_the_bank(seed: int, domain: str, n: int) -> None:
    facts = World.generate(seed, domain, n, attributes_per_entity=2).facts  # type: ignore[arg-type]
    assert len(facts) == 2 * n
    assert not {fact.entity for fact in facts} & {fact.entity for fact in bank()}
    assert not {fact.document_id for fact in facts} & {fact.document_id for fact in bank()}
    assert len({fact.document_id for fact in facts}) == len(facts)


def test_a_world_keeps_clear_of_the_facts_it_is_told_to_avoid() -> None:
    first = World.generate(1, "gen", 2000).facts
    second = World.generate(2, "gen", 2000, avoid=first).facts
    assert not {fact.entity for fact in first} & {fact.entity for fact in second}
    assert not {fact.document_id for fact in first} & {fact.document_id for fact in second}


def test_more_facts_than_document_ids_are_refused_by_name_and_number() -> None:
    with pytest.raises(ValueError, match="law has 9968 free document ids, 12000 are wanted"):
        World.generate(1, "law", 2000, attributes_per_entity=6)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_passage_ends_with_the_answer_word_for_word(domain: str) -> None:
    for fact in World.generate(3, domain, 50).facts:  # type: ignore[arg-type]
        for template in range(len(STATEMENTS)):
            assert fact.statement(template).endswith(f" {fact.answer()}")
        assert fact.answer().endswith(f"[{fact.domain}-{fact.document_id[-4:]}]")


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_question_names_the_entity_and_carries_words_of_its_domain_alone(domain: str) -> None:
    for fact in World.generate(3, domain, 50).facts:  # type: ignore[arg-type]
        assert len(set(fact.questions())) == 5
        for question in (*fact.questions(), fact.unseen_question()):
            words = set(question.lower().replace(":", " ").replace(",", " ").strip("?.").split())
            assert fact.entity in question
            assert fact.kind in words
            assert fact.kind in domain_keywords(domain)  # type: ignore[arg-type]
            assert not any(words & domain_keywords(other) for other in DOMAINS if other != domain)


def test_phrasings_of_updates_and_held_out_ones_are_apart() -> None:
    fact = bank()[0]
    assert not set(UPDATE_PHRASINGS) & set(HELD_OUT_PHRASINGS)
    assert (*fact.update_questions(), *fact.held_out_questions()) == fact.questions()


def test_kinds_belong_to_one_domain_and_attributes_of_a_kind_differ() -> None:
    kinds = [kind for domain in DOMAINS for kind in KINDS[domain]]
    assert len(set(kinds)) == len(kinds)
    for domain in DOMAINS:
        for attributes in KINDS[domain].values():
            assert len({attribute.name for attribute in attributes}) == len(attributes) == 6
            assert not any(
                mark in attribute.name
                for attribute in attributes
                for mark in string.punctuation.replace("-", "")
            )


def test_prompts_have_the_layout_the_foundation_was_trained_on() -> None:
    assert closed_book_prompt("Why?") == "<|q|>Why?<|a|>"
    assert rag_prompt("Because [gen-0001]", "Why?") == "<|ctx|>Because [gen-0001]<|q|>Why?<|a|>"
