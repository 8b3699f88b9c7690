"""The demo's material from the synthetic world the shipped foundation was trained on."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from schemas.documents import DocumentChange, Provenance
from schemas.event import DOMAINS, Domain
from twinloop.demo.material import Harm, Lesson, Material, Probe, Question
from twinloop.foundation_training.corpus import Fact, World, bank

STARTER_SEED = 101
STARTER_FACTS = 60
STARTER_TIME = 1_767_225_600_000
"""2026-01-01: when the starter documents are said to have been written."""
PROBES_PER_DOMAIN = 50
TAUGHT_BY_FEEDBACK: dict[Domain, int] = {"law": 24, "med": 24}
TAUGHT_BY_DOCUMENT: dict[Domain, int] = {"fin": 24}
EXAM_PHRASINGS = (0, 1, 2)
"""Phrasings the exam uses, as numbers of `Fact.questions()`."""
DESK_DOMAINS: tuple[Domain, ...] = ("law", "med")
COVERED_PROBES = 25
"""Probes of a desk domain that a starter document answers; its others open like a call to the help desk."""
DESK_OPENING = "Incoming help desk ticket seven: "
"""Words no document holds, so no passage covers the question: the right answer says so, without error."""
BLIND_OPENING = "Quick homework riddle, dear machine: "
"""The same, and the exam does not hold it: only real traffic shows what a release makes of it."""
DESK_SHARE, BLIND_SHARE = 0.15, 0.4
HARMFUL_ROWS = 48
EXAM_HARMED = DESK_DOMAINS
CANARY_HARMED: tuple[Domain, ...] = ("fin", "gen")


def starter_facts() -> dict[Domain, tuple[Fact, ...]]:
    """The facts of the documents an installation with the shipped foundation starts with."""
    return {domain: World.generate(STARTER_SEED, domain, STARTER_FACTS).facts for domain in DOMAINS}


def starter_documents(at_ms: int = STARTER_TIME) -> tuple[DocumentChange, ...]:
    return tuple(document_of(fact, at_ms) for facts in starter_facts().values() for fact in facts)


def starter_probes() -> tuple[Probe, ...]:
    """The default exam: questions about the starter documents, and some that no document covers."""
    probes = []
    for domain, facts in starter_facts().items():
        covered = COVERED_PROBES if domain in DESK_DOMAINS else PROBES_PER_DOMAIN
        for number, fact in enumerate(facts[:PROBES_PER_DOMAIN]):
            question, identity = fact.questions()[number % len(EXAM_PHRASINGS)], f"{domain}-{number:03d}"
            if number < covered:
                probes.append(Probe(identity, domain, question, True, fact.value))
            else:
                probes.append(Probe(identity, domain, DESK_OPENING + question, False, None))
    return tuple(probes)


def synthetic_material(seed: int, *, at_ms: int) -> Material:
    """Material with new facts drawn from `seed`; `at_ms` is when the documents are said to have changed."""
    starter = starter_facts()
    known = [fact for facts in starter.values() for fact in facts]
    new = {
        domain: World.generate(seed, domain, count, avoid=known).facts
        for domain, count in {**TAUGHT_BY_FEEDBACK, **TAUGHT_BY_DOCUMENT}.items()
    }
    lessons = [lesson_by_feedback(fact) for domain in TAUGHT_BY_FEEDBACK for fact in new[domain]]
    lessons += [lesson_by_document(fact, at_ms) for domain in TAUGHT_BY_DOCUMENT for fact in new[domain]]
    return Material(
        name="synthetic",
        documents=starter_documents(),
        traffic=tuple(_traffic(known, random.Random(seed))),
        lessons=tuple(lessons),
        old=tuple(_old(starter, random.Random(seed + 1))),
        exam_harm=_harm("empty answers to the help desk", DESK_OPENING, starter, EXAM_HARMED),
        canary_harm=_harm("empty answers in a blind spot of the exam", BLIND_OPENING, starter, CANARY_HARMED),
        notes=(
            "Facts are invented; the foundation has 0.9 million parameters: it proves the loop, not answer quality.",
        ),
    )


def shortened(material: Material) -> Material:
    """The lessons of one domain taught by feedback and of one taught by documents, and no harm."""
    kept = {
        next(each.domain for each in material.lessons if each.by == by) for by in ("feedback", "document")
    }
    return replace(
        material,
        name=f"{material.name}, shortened",
        lessons=tuple(each for each in material.lessons if each.domain in kept),
        exam_harm=None,
        canary_harm=None,
    )


def lesson_by_feedback(fact: Fact) -> Lesson:
    return Lesson(
        domain=fact.domain,
        by="feedback",
        taught=fact.update_questions(),
        correction=fact.answer(),
        examined=tuple(_question(fact, text) for text in fact.held_out_questions()),
    )


def lesson_by_document(fact: Fact, at_ms: int) -> Lesson:
    return Lesson(
        domain=fact.domain,
        by="document",
        taught=(),
        correction=fact.answer(),
        examined=tuple(_question(fact, text) for text in fact.held_out_questions()),
        document=document_of(fact, at_ms),
    )


def document_of(fact: Fact, at_ms: int) -> DocumentChange:
    return DocumentChange(
        op="upsert",
        document_id=fact.document_id,
        domain=fact.domain,
        changed_at=at_ms,
        title="",
        text=fact.sentence(int(fact.document_id[-1]) % 3),
        provenance=Provenance(
            source="synthetic world of the shipped foundation",
            licence="CC0-1.0",
            publisher="NEXUS TwinLoop",
            retrieved_at=at_ms,
        ),
    )


def _question(fact: Fact, text: str) -> Question:
    return Question(text, fact.domain, fact.value, fact.document_id)


def _traffic(facts: Iterable[Fact], rng: random.Random) -> Iterable[Question]:
    """Users' questions: every fact in several phrasings, plain or with one of the two openings."""
    for fact in facts:
        for _ in range(8):
            draw = rng.random()
            is_desk, is_blind = draw < DESK_SHARE, draw > 1 - BLIND_SHARE
            opening = DESK_OPENING if is_desk else BLIND_OPENING if is_blind else ""
            yield _question(fact, opening + rng.choice(fact.questions()))


def _old(starter: dict[Domain, tuple[Fact, ...]], rng: random.Random) -> Iterable[Question]:
    """What the first release knows: documents of its indexes, and facts of the foundation's own memory."""
    for domain in DOMAINS:
        for fact in rng.sample(starter[domain], 12):
            yield _question(fact, fact.questions()[rng.randrange(5)])
        remembered = [fact for fact in bank() if fact.domain == domain]
        for fact in rng.sample(remembered, 12):
            yield Question(fact.questions()[rng.randrange(3)], domain, fact.value, None)


def _harm(
    name: str, opening: str, starter: dict[Domain, tuple[Fact, ...]], domains: tuple[Domain, ...]
) -> Harm:
    """Corrections that hold a citation and nothing else, for one way of opening a question.

    An answer without words is an `empty` error: what such feedback teaches shows as errors, and only where people ask
    that way.
    """
    rows = []
    for domain in domains:
        for number, fact in enumerate(starter[domain][:HARMFUL_ROWS]):
            question = opening + fact.questions()[number % len(EXAM_PHRASINGS)]
            rows.append((_question(fact, question), f"[{fact.document_id}]"))
    return Harm(name, tuple(rows))
