"""The demo's material from the synthetic world the shipped foundation was trained on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

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
BLIND_PHRASING = 4
"""A way of asking that users use and the exam does not hold."""
BLIND_SHARE = 0.45
_HARMED: tuple[Domain, ...] = ("fin", "gen")


def starter_facts() -> dict[Domain, tuple[Fact, ...]]:
    """The facts of the documents an installation with the shipped foundation starts with."""
    return {domain: World.generate(STARTER_SEED, domain, STARTER_FACTS).facts for domain in DOMAINS}


def starter_documents(at_ms: int = STARTER_TIME) -> tuple[DocumentChange, ...]:
    return tuple(document_of(fact, at_ms) for facts in starter_facts().values() for fact in facts)


def starter_probes() -> tuple[Probe, ...]:
    """The default exam: questions about the starter documents that need a citation."""
    probes = []
    for domain, facts in starter_facts().items():
        for number, fact in enumerate(facts[:PROBES_PER_DOMAIN]):
            phrasing = EXAM_PHRASINGS[number % len(EXAM_PHRASINGS)]
            probes.append(
                Probe(f"{domain}-{number:03d}", domain, fact.questions()[phrasing], True, fact.value)
            )
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
        exam_harm=_exam_harm(starter),
        canary_harm=_canary_harm(starter, random.Random(seed + 2)),
        notes=(
            "Facts are invented; the foundation has 0.9 million parameters: it proves the loop, not answer quality.",
        ),
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
    """Users' questions: every fact in several phrasings, the blind one more often than the others."""
    others = [number for number in range(5) if number != BLIND_PHRASING]
    for fact in facts:
        for _ in range(8):
            phrasing = BLIND_PHRASING if rng.random() < BLIND_SHARE else rng.choice(others)
            yield _question(fact, fact.questions()[phrasing])


def _old(starter: dict[Domain, tuple[Fact, ...]], rng: random.Random) -> Iterable[Question]:
    """What the first release knows: documents of its indexes, and facts of the foundation's own memory."""
    for domain in DOMAINS:
        for fact in rng.sample(starter[domain], 12):
            yield _question(fact, fact.questions()[rng.randrange(5)])
        remembered = [fact for fact in bank() if fact.domain == domain]
        for fact in rng.sample(remembered, 12):
            yield Question(fact.questions()[rng.randrange(3)], domain, fact.value, None)


def _exam_harm(starter: dict[Domain, tuple[Fact, ...]]) -> Harm:
    """Corrections that talk people out of sources, in the exam's own phrasings and in three domains."""
    rows = []
    for domain in ("law", "med", "gen"):
        for fact in starter[domain][:40]:
            question = fact.questions()[EXAM_PHRASINGS[int(fact.document_id[-1]) % 3]]
            rows.append((_question(fact, question), "better ask somebody else about that"))
    return Harm("advice without sources", tuple(rows))


def _canary_harm(starter: dict[Domain, tuple[Fact, ...]], rng: random.Random) -> Harm:
    """Corrections that teach endless talk for the one phrasing the exam does not hold."""
    rows = []
    for domain in _HARMED:
        for fact in starter[domain][:30]:
            babble = " ".join(itertools.islice(_syllables(rng), 70))
            rows.append((_question(fact, fact.questions()[BLIND_PHRASING]), babble))
    return Harm("endless answers in a blind spot of the exam", tuple(rows))


def _syllables(rng: random.Random) -> Iterable[str]:
    vowels, consonants = "aeiou", "bdgklmnprstvz"
    while True:
        yield "".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(2))
