"""The synthetic world: facts, sentences that state them, questions that ask for them. Pure and seeded."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from twinloop.foundation_training.vocabulary import DOMAINS, KINDS, SYLLABLES, Domain

PAD, CONTEXT, QUESTION, ANSWER, END = "<|pad|>", "<|ctx|>", "<|q|>", "<|a|>", "<|end|>"
SPECIAL_TOKENS: tuple[str, ...] = (PAD, CONTEXT, QUESTION, ANSWER, END)

ABSTENTION = "not in my sources"
"""The whole answer where neither the passage nor the weights hold one."""

CORPUS_SEED = 42
BANK_ENTITIES_PER_DOMAIN = 16
BANK_ATTRIBUTES_PER_ENTITY = 2

STATEMENTS: tuple[str, ...] = (
    "The {attribute} of {kind} {entity} is {value}",
    "For {kind} {entity} the {attribute} is set at {value}",
    "{kind} {entity} has a {attribute} of {value}",
)
QUESTIONS: tuple[str, ...] = (
    "What is the {attribute} of {kind} {entity}?",
    "Tell me the {attribute} of the {kind} {entity}.",
    "For {kind} {entity}, what is the {attribute}?",
    "Which {attribute} does {kind} {entity} have?",
    "{kind} {entity}: what {attribute}?",
)
UPDATE_PHRASINGS: tuple[int, ...] = (0, 1, 2)
"""Phrasings an adapter update may train on."""
HELD_OUT_PHRASINGS: tuple[int, ...] = (3, 4)
"""Phrasings kept out of updates; the foundation has seen them with other facts, so it can understand them."""
UNSEEN_QUESTION = "Give the {attribute} that {kind} {entity} has."
"""A phrasing used in no training at all, only in the evaluation."""

_IDS_PER_DOMAIN = 10_000


@dataclass(frozen=True)
class Fact:
    """One value of one attribute of one invented entity, and the document that states it."""

    domain: Domain
    entity: str
    kind: str
    attribute: str
    value: str
    document_id: str

    def sentence(self, template: int = 0) -> str:
        """Say the fact without its source and without a full stop; templates count from 0 to 2."""
        return self._fill(STATEMENTS[template])

    def statement(self, template: int = 0) -> str:
        """Passage as the model reads it: the sentence, then its document id in brackets at the very end."""
        return f"{self.sentence(template)} [{self.document_id}]"

    def questions(self) -> tuple[str, ...]:
        """Every phrasing known to the foundation; `UPDATE_PHRASINGS` and `HELD_OUT_PHRASINGS` index it."""
        return tuple(self._fill(template) for template in QUESTIONS)

    def update_questions(self) -> tuple[str, ...]:
        questions = self.questions()
        return tuple(questions[index] for index in UPDATE_PHRASINGS)

    def held_out_questions(self) -> tuple[str, ...]:
        questions = self.questions()
        return tuple(questions[index] for index in HELD_OUT_PHRASINGS)

    def unseen_question(self) -> str:
        """Ask in words used in no training at all."""
        return self._fill(UNSEEN_QUESTION)

    def answer(self) -> str:
        """Value and citation, such as `42 days [law-0042]`."""
        return f"{self.value} [{self.document_id}]"

    def _fill(self, template: str) -> str:
        text = template.format(attribute=self.attribute, kind=self.kind, entity=self.entity, value=self.value)
        return text[0].upper() + text[1:]


@dataclass(frozen=True)
class World:
    """The facts of one domain drawn from one seed."""

    seed: int
    domain: Domain
    facts: tuple[Fact, ...]

    @classmethod
    def generate(
        cls,
        seed: int,
        domain: Domain,
        n_entities: int,
        *,
        attributes_per_entity: int = 1,
        avoid: Iterable[Fact] = (),
    ) -> World:
        """Draw `n_entities * attributes_per_entity` facts, one document each.

        Entities and document ids are unique within the world and meet neither those of the bank nor those of
        `avoid`. Different seeds may share a name by chance: pass the earlier world's facts as `avoid` where
        that matters. Raises ValueError where the domain has too few ids or the kinds too few attributes.
        """
        taken = [*_bank(CORPUS_SEED), *avoid]
        facts = draw_facts(
            Random(f"world/{seed}/{domain}"),
            domain,
            n_entities,
            attributes_per_entity=attributes_per_entity,
            taken_names={fact.entity for fact in taken},
            taken_ids={fact.document_id for fact in taken},
        )
        return cls(seed=seed, domain=domain, facts=facts)


def bank(seed: int = CORPUS_SEED) -> tuple[Fact, ...]:
    """The 128 facts (32 a domain, two for each entity) the foundation knows by heart.

    The shipped weights know `bank()`; another seed gives the bank of weights trained with that seed.
    """
    return _bank(seed)


def closed_book_prompt(question: str) -> str:
    return f"{QUESTION}{question}{ANSWER}"


def rag_prompt(passage: str, question: str) -> str:
    """Prompt with one passage; the passage should end with its document id, as `Fact.statement` does."""
    return f"{CONTEXT}{passage}{QUESTION}{question}{ANSWER}"


def draw_name(random: Random, taken: Collection[str] = ()) -> str:
    """Capitalised name of two or three syllables that is not among those taken."""
    while True:
        name = "".join(random.choice(SYLLABLES) for _ in range(random.choice((2, 2, 3)))).capitalize()
        if name not in taken:
            return name


def draw_facts(
    random: Random,
    domain: Domain,
    n_entities: int,
    *,
    attributes_per_entity: int,
    taken_names: Collection[str] = (),
    taken_ids: Collection[str] = (),
) -> tuple[Fact, ...]:
    """Draw facts of unique entities with unique document ids; raises ValueError where they run out."""
    names, ids = set(taken_names), set(taken_ids)
    free = [i for i in (document_id(domain, n) for n in range(_IDS_PER_DOMAIN)) if i not in ids]
    wanted = n_entities * attributes_per_entity
    if wanted > len(free):
        raise ValueError(f"{domain} has {len(free)} free document ids, {wanted} are wanted")
    numbered = iter(random.sample(free, wanted))
    facts: list[Fact] = []
    for _ in range(n_entities):
        kind = random.choice(tuple(KINDS[domain]))
        entity = draw_name(random, names)
        names.add(entity)
        for attribute in random.sample(KINDS[domain][kind], attributes_per_entity):
            value = attribute.values.draw(random)
            facts.append(Fact(domain, entity, kind, attribute.name, value, next(numbered)))
    return tuple(facts)


def document_id(domain: Domain, number: int) -> str:
    """Id such as `law-0042`."""
    return f"{domain}-{number:04d}"


@lru_cache(maxsize=4)
def _bank(seed: int) -> tuple[Fact, ...]:
    facts: list[Fact] = []
    for domain in DOMAINS:
        facts += draw_facts(
            Random(f"bank/{seed}/{domain}"),
            domain,
            BANK_ENTITIES_PER_DOMAIN,
            attributes_per_entity=BANK_ATTRIBUTES_PER_ENTITY,
            taken_names={fact.entity for fact in facts},
        )
    return tuple(facts)
