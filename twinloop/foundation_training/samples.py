"""The mix of examples the foundation is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from twinloop.foundation_training import foreign_text
from twinloop.foundation_training.corpus import (
    ABSTENTION,
    QUESTIONS,
    STATEMENTS,
    Fact,
    document_id,
    draw_name,
)
from twinloop.foundation_training.vocabulary import DOMAINS, KINDS


@dataclass(frozen=True)
class Sample:
    """One training example; `passage` is None for a closed-book question."""

    passage: str | None
    question: str
    answer: str


@dataclass(frozen=True)
class Mix:
    """Relative weights of the kinds of sample."""

    grounded: float
    closed_book: float
    two_passages: float
    wrong_passage: float
    foreign_passage: float
    unknown_entity: float
    foreign_question: float


WARM_MIX = Mix(
    grounded=0.72,
    closed_book=0.22,
    two_passages=0.0,
    wrong_passage=0.0,
    foreign_passage=0.02,
    unknown_entity=0.02,
    foreign_question=0.02,
)
"""The first steps: copying comes first, before anything that needs a comparison."""

MAIN_MIX = Mix(
    grounded=0.47,
    closed_book=0.24,
    two_passages=0.06,
    wrong_passage=0.11,
    foreign_passage=0.04,
    unknown_entity=0.05,
    foreign_question=0.03,
)


def stream(random: Random, bank: Sequence[Fact], mix: Mix) -> Iterator[Sample]:
    """Endless samples; every fact outside the bank is drawn anew, so only the bank can be memorised."""
    weights = vars(mix)
    names, values = tuple(weights), tuple(weights.values())
    while True:
        kind = random.choices(names, values)[0]
        yield _MAKERS[kind](random, bank)


def fresh_fact(random: Random, bank: Sequence[Fact]) -> Fact:
    """A fact of an entity outside the bank."""
    domain = random.choice(DOMAINS)
    kind = random.choice(tuple(KINDS[domain]))
    attribute = random.choice(KINDS[domain][kind])
    return Fact(
        domain=domain,
        entity=draw_name(random, {known.entity for known in bank}),
        kind=kind,
        attribute=attribute.name,
        value=attribute.values.draw(random),
        document_id=document_id(domain, random.randrange(10_000)),
    )


def sibling(random: Random, fact: Fact, bank: Sequence[Fact]) -> Fact:
    """A fact easily mistaken for this one: same attribute elsewhere, or another one of the same entity."""
    attributes = {attribute.name: attribute for attribute in KINDS[fact.domain][fact.kind]}
    number = document_id(fact.domain, random.randrange(10_000))
    if random.random() < 0.5:
        entity = draw_name(random, {fact.entity, *(known.entity for known in bank)})
        value = attributes[fact.attribute].values.draw(random)
        return replace(fact, entity=entity, value=value, document_id=number)
    name = random.choice([name for name in attributes if name != fact.attribute])
    return replace(fact, attribute=name, value=attributes[name].values.draw(random), document_id=number)


def _passage(random: Random, fact: Fact) -> str:
    template = random.randrange(len(STATEMENTS))
    text = fact.statement(template)
    if random.random() < 0.2:
        text = f"{fact.sentence(template)}. [{fact.document_id}]"
    if random.random() < 0.15:
        text = f"{foreign_text.paragraph(random, 3)} {text}"
    return text


def _question(random: Random, fact: Fact) -> str:
    return fact.questions()[random.randrange(len(QUESTIONS))]


def _grounded(random: Random, bank: Sequence[Fact]) -> Sample:
    fact = fresh_fact(random, bank)
    if random.random() < 0.08:
        known = random.choice(bank)
        values = next(a for a in KINDS[known.domain][known.kind] if a.name == known.attribute).values
        number = document_id(known.domain, random.randrange(10_000))
        fact = replace(known, value=values.draw(random), document_id=number)
    return Sample(_passage(random, fact), _question(random, fact), fact.answer())


def _closed_book(random: Random, bank: Sequence[Fact]) -> Sample:
    fact = random.choice(bank)
    return Sample(None, _question(random, fact), fact.answer())


def _two_passages(random: Random, bank: Sequence[Fact]) -> Sample:
    fact = fresh_fact(random, bank)
    passages = [_passage(random, fact), _passage(random, sibling(random, fact, bank))]
    random.shuffle(passages)
    return Sample("\n".join(passages), _question(random, fact), fact.answer())


def _wrong_passage(random: Random, bank: Sequence[Fact]) -> Sample:
    fact = fresh_fact(random, bank)
    other = sibling(random, fact, bank) if random.random() < 0.6 else fresh_fact(random, bank)
    return Sample(_passage(random, other), _question(random, fact), ABSTENTION)


def _foreign_passage(random: Random, bank: Sequence[Fact]) -> Sample:
    fact = fresh_fact(random, bank)
    sentences, words = (40, 60) if random.random() < 0.05 else (4, 8)
    text = foreign_text.paragraph(random, sentences)
    if random.random() < 0.3:
        text = foreign_text.noise(random, words)
    if random.random() < 0.7:
        text = f"{text} [{fact.document_id}]"
    asked = _question(random, fact) if random.random() < 0.5 else foreign_text.question(random)
    return Sample(text, asked, ABSTENTION)


def _unknown_entity(random: Random, bank: Sequence[Fact]) -> Sample:
    return Sample(None, _question(random, fresh_fact(random, bank)), ABSTENTION)


def _foreign_question(random: Random, bank: Sequence[Fact]) -> Sample:
    if random.random() < 0.4:
        fact = fresh_fact(random, bank)
        return Sample(_passage(random, fact), foreign_text.question(random), ABSTENTION)
    asked = foreign_text.noise(random, 8) if random.random() < 0.3 else foreign_text.question(random)
    return Sample(None, asked, ABSTENTION)


_MAKERS = {
    "grounded": _grounded,
    "closed_book": _closed_book,
    "two_passages": _two_passages,
    "wrong_passage": _wrong_passage,
    "foreign_passage": _foreign_passage,
    "unknown_entity": _unknown_entity,
    "foreign_question": _foreign_question,
}
