"""The demo's material from published question sets: law.jsonl, med.jsonl, fin.jsonl, gen.jsonl in one folder."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from schemas.documents import DocumentChange
from schemas.event import DOMAINS, Domain
from twinloop.demo.material import Harm, Lesson, Material, Probe, Question
from twinloop.demo.synthetic import (
    BLIND_OPENING,
    BLIND_SHARE,
    CANARY_HARMED,
    DESK_DOMAINS,
    DESK_OPENING,
    DESK_SHARE,
    HARMFUL_ROWS,
)
from twinloop.errors import ConfigError
from twinloop.importing.importer import Imported, QuestionAnswer, change_of, import_files
from twinloop.importing.rows import Terms
from twinloop.retrieval.document import Document
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.rules import read_rules

MAX_WORDS = 120
KNOWN_PER_DOMAIN = 120
"""Documents of each domain that the first indexes hold."""
NEWS_PER_DOMAIN = 40
"""Documents of each domain that arrive later; their questions are examined before and after."""
ASKED_PER_DOMAIN = 40
"""Known questions of each domain that the background traffic asks, so that its first-time texts soon are few: each
costs MiniLM a pass of its own."""
OLD_PER_DOMAIN = 25
TAUGHT: dict[Domain, int] = {"law": 20, "gen": 16}
"""Corrections of a domain: the shortest answers, as the small foundation spells foreign words letter by letter."""
RULES = Path("configs/rules.json")
PROBES_PER_DOMAIN = 50
PROBES_IN_FLIGHT = 4
"""Half of the shipped number: a question costs MiniLM about 16 ms, and the exam times answers, not a queue."""
EMBEDDER = json.dumps({"kind": "minilm", "dim": None})


def real_material(folder: Path, *, seed: int, at_ms: int) -> Material:
    """Read the four files; raises ConfigError naming one that is missing or holds too little."""
    found = _read(folder, at_ms)
    rng = random.Random(seed)
    documents: list[DocumentChange] = []
    lessons: list[Lesson] = []
    known: dict[Domain, list[Question]] = {}
    # A correction teaches the domain that the router chose. A stray row alone in another domain would spoil that
    # domain's adapter, and the gates would rightly refuse the candidate.
    chooser = DomainChooser(read_rules(RULES.read_bytes(), name=str(RULES)))
    for domain in DOMAINS:
        pairs, texts = _of(found, domain, at_ms)
        rng.shuffle(pairs)
        chosen = _distinct(pairs)
        if len(chosen) < 60:
            raise ConfigError(
                f"{folder / f'{domain}.jsonl'}: {len(chosen)} questions with documents, 60 are needed"
            )
        news = chosen[: min(NEWS_PER_DOMAIN, len(chosen) // 3)]
        rest = chosen[len(news) : len(news) + KNOWN_PER_DOMAIN]
        documents += [change_of(texts[pair.document_id or ""], changed_at=at_ms) for pair in rest]
        lessons += [
            _by_document(pair, domain, change_of(texts[pair.document_id or ""], changed_at=at_ms))
            for pair in news
        ]
        known[domain] = [_question(pair, domain) for pair in rest]
        lessons += _by_feedback([pair for pair in rest if chooser.choose(pair.question) == domain], domain)
    asked = [question for questions in known.values() for question in questions[:ASKED_PER_DOMAIN]]
    return Material(
        name=f"real data from {folder.name}",
        documents=tuple(documents),
        traffic=tuple(_traffic(asked, rng)),
        lessons=tuple(lessons),
        old=tuple(question for questions in known.values() for question in questions[:OLD_PER_DOMAIN]),
        probes=tuple(
            Probe(
                f"{domain}-{number:03d}",
                domain,
                (DESK_OPENING if domain in DESK_DOMAINS and number % 2 else "") + question.text,
                False,
            )
            for domain, questions in known.items()
            for number, question in enumerate((questions * 2)[:PROBES_PER_DOMAIN])
        ),
        exam_harm=_harm("empty answers to the help desk", DESK_OPENING, known, DESK_DOMAINS),
        canary_harm=_harm("empty answers in a blind spot of the exam", BLIND_OPENING, known, CANARY_HARMED),
        environment={
            "inference": {"TWINLOOP_INFERENCE__EMBEDDER": EMBEDDER},
            "gatekeeper": {"TWINLOOP_GATEKEEPER__PROBES__MAX_IN_FLIGHT": str(PROBES_IN_FLIGHT)},
            "trainer": {"TWINLOOP_TRAINER__EMBEDDER": EMBEDDER},
        },
        notes=(
            "The shipped foundation cannot read real text and abstains: this measures the loop and the retrieval.",
            "gen has no passages; each of its documents is one trivia card, question and answer.",
            "The exam asks for an answer without error, not for a citation.",
            f"The exam has {PROBES_IN_FLIGHT} probes in flight, as each costs a second model.",
        ),
        traffic_per_second=25.0,
        rise_per_second=0.75,  # a slot that begins to serve has no question's vector yet: each costs 17 ms once
        asked_per_second=12.0,
    )


def _read(folder: Path, at_ms: int) -> Imported:
    paths = [folder / f"{domain}.jsonl" for domain in DOMAINS]
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"{path}: not found; --data needs law.jsonl, med.jsonl, fin.jsonl and gen.jsonl"
            )
    return import_files(
        paths, kind="jsonl", terms=Terms(retrieved_at=at_ms, publisher="see source"), max_words=MAX_WORDS
    )


def _of(found: Imported, domain: Domain, at_ms: int) -> tuple[list[QuestionAnswer], dict[str, Document]]:
    """A domain's pairs and documents; pairs without a passage get a card of their own."""
    texts = {document.id: document for document in found.documents if document.domain == domain}
    pairs = []
    for pair in found.pairs:
        if pair.domain != domain:
            continue
        if pair.document_id is None:
            card = _card(pair, domain, at_ms)
            texts[card.id] = card
            pair = replace(pair, document_id=card.id)
        pairs.append(pair)
    return pairs, texts


def _card(pair: QuestionAnswer, domain: Domain, at_ms: int) -> Document:
    return Document(
        id=f"{domain}-card-{pair.id.rsplit('-', 1)[-1]}-{len(pair.question)}",
        domain=domain,
        title="",
        text=f"{pair.question} {pair.answer}",
        source=pair.source,
        licence=pair.licence,
        publisher=pair.source.split("/")[0],
        retrieved_at=at_ms,
    )


def _distinct(pairs: Sequence[QuestionAnswer]) -> list[QuestionAnswer]:
    """One pair a document, so that what is known and what is news never share a passage."""
    seen: dict[str, QuestionAnswer] = {}
    for pair in pairs:
        if pair.document_id is not None and len(pair.question) <= 500:
            seen.setdefault(pair.document_id, pair)
    return list(seen.values())


def _question(pair: QuestionAnswer, domain: Domain) -> Question:
    return Question(pair.question, domain, pair.answer, pair.document_id)


def _by_document(pair: QuestionAnswer, domain: Domain, change: DocumentChange) -> Lesson:
    return Lesson(domain, "document", (), pair.answer, (_question(pair, domain),), change)


def _by_feedback(pairs: Sequence[QuestionAnswer], domain: Domain) -> list[Lesson]:
    short = sorted(pairs, key=lambda pair: len(pair.answer))[: TAUGHT.get(domain, 0)]
    return [Lesson(domain, "feedback", (pair.question,), pair.answer, (), None) for pair in short]


def _traffic(questions: Sequence[Question], rng: random.Random) -> list[Question]:
    asked = []
    for question in [*questions, *questions]:
        draw = rng.random()
        opening = DESK_OPENING if draw < DESK_SHARE else BLIND_OPENING if draw > 1 - BLIND_SHARE else ""
        asked.append(replace(question, text=opening + question.text))
    return asked


def _harm(name: str, opening: str, known: dict[Domain, list[Question]], domains: tuple[Domain, ...]) -> Harm:
    rows = [
        (replace(question, text=opening + question.text), f"[{question.document_id}]")
        for domain in domains
        for question in known[domain][:HARMFUL_ROWS]
    ]
    return Harm(name, tuple(rows))
