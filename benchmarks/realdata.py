"""What feedback and documents change on published question sets: `python -m benchmarks realdata --data FOLDER`.

FOLDER holds JSONL slices named law, med, fin and gen, in the form that `twinloop import jsonl` reads. In each domain
the first index holds the known documents; then the rest arrive as document updates, and the shortest answers among the
known are taught as corrections by the shipped update. Printed for the hashing embedder and for MiniLM, where it is
installed:

- hit@1, hit@4: the document that holds the answer is among the first retrieved.
- passage holds answer: the text of the first retrieved document contains the expected answer.
- answer holds it: so does what the shipped foundation writes, shown the first passage where its coverage suffices.

Only figures are written, to `benchmarks/results/realdata.json`. Processor seconds; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.learning_setup import FORMAT, Bench, table, write_result
from schemas.event import DOMAINS, Domain
from services.trainer.learning.dataset import Example, TrainingRow
from services.trainer.learning.replay_batches import Rows
from services.trainer.learning.settings import LearningSettings
from twinloop.errors import ConfigError
from twinloop.importing.importer import import_files
from twinloop.importing.rows import Terms
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.generation import GenerationItem, Generator
from twinloop.model_runtime.prompt import Passage, render
from twinloop.retrieval.coverage import TermWeights
from twinloop.retrieval.document import Document
from twinloop.retrieval.embedder import Embedder
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.retrieval.index import DomainIndex, Hit

EMBEDDERS: Mapping[str, Mapping[str, object]] = {
    "hashing": {"kind": "hashing", "dim": 1024},
    "MiniLM": {"kind": "minilm"},
}
MAX_WORDS = 120
KNOWN, NEWS, TAUGHT, ASKED_KNOWN = 120, 40, 16, 40
COVERAGE = 0.8
"""`min_passage_coverage` of the shipped prompt."""
SEED = 42


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the document that holds it."""

    text: str
    answer: str
    document: Document


@dataclass(frozen=True)
class Slice:
    """One domain's material."""

    domain: Domain
    known: tuple[Question, ...]
    news: tuple[Question, ...]
    """Their documents come as updates."""
    taught: tuple[Question, ...]
    """Of the known: these are corrected by feedback."""


def read_slices(folder: Path) -> list[Slice]:
    """Read the four files; raises ConfigError naming one that is missing."""
    paths = [folder / f"{domain}.jsonl" for domain in DOMAINS]
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path}: not found; --data needs {', '.join(each.name for each in paths)}")
    found = import_files(
        paths, kind="jsonl", terms=Terms(retrieved_at=1, publisher="see source"), max_words=MAX_WORDS
    )
    texts = {document.id: document for document in found.documents}
    slices = []
    for domain in DOMAINS:
        by_document: dict[str, Question] = {}
        for pair in found.pairs:
            # A trivia question comes without a passage: question and answer make a card.
            document = texts.get(pair.document_id or "") or _card(pair, domain)
            if pair.domain == domain and len(pair.question) <= 500:
                by_document.setdefault(document.id, Question(pair.question, pair.answer, document))
        questions = list(by_document.values())
        random.Random(f"{SEED}/{domain}").shuffle(questions)
        news = questions[: min(NEWS, len(questions) // 3)]
        known = questions[len(news) : len(news) + KNOWN]
        # One answer a question: what two documents answer differently cannot be learned by heart.
        distinct = {question.text: question for question in known}.values()
        taught = sorted(distinct, key=lambda question: (len(question.answer), question.text))[:TAUGHT]
        slices.append(Slice(domain, tuple(known), tuple(news), tuple(taught)))
    return slices


def retrieval(index: DomainIndex, questions: Sequence[Question]) -> dict[str, float]:
    """hit@1, hit@4 and the share whose first document contains the answer."""
    hits = index.search([question.text for question in questions], 4)
    places = [[hit.document.id for hit in row] for row in hits]
    return {
        "hit@1": _share(q.document.id in row[:1] for q, row in zip(questions, places, strict=True)),
        "hit@4": _share(q.document.id in row for q, row in zip(questions, places, strict=True)),
        "passage holds answer": _share(
            _holds(row[0].document.text, q.answer) for q, row in zip(questions, hits, strict=True) if row
        ),
    }


class Reader:
    """The shipped foundation, asked as inference asks it."""

    def __init__(self, bench: Bench) -> None:
        self._bank = AdapterBank(bench.foundation.model)
        self._generator = Generator(bench.foundation, self._bank, max_new_tokens=FORMAT.max_new_tokens)

    def learn(self, name: str, files: Mapping[str, bytes]) -> None:
        self._bank.load(name, files)

    def close(self) -> None:
        self._bank.close()

    def contained(self, index: DomainIndex, questions: Sequence[Question], adapter: str | None) -> float:
        """Share of questions whose written answer contains the expected one."""
        terms = TermWeights.of(document.searchable_text() for document in index.documents)
        hits = index.search([question.text for question in questions], 1)
        items = [
            GenerationItem(render(FORMAT, question.text, _shown(question, row, terms)), adapter)
            for question, row in zip(questions, hits, strict=True)
        ]
        answers = [
            answer
            for start in range(0, len(items), 8)
            for answer in self._generator.answer_batch(items[start : start + 8])
        ]
        return _share(_holds(a.text, q.answer) for q, a in zip(questions, answers, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of JSONL slices")
    parser.add_argument("--quick", action="store_true", help="the hashing embedder alone")
    arguments = parser.parse_args()
    slices = read_slices(arguments.data)
    bench = Bench()
    learned = {piece.domain: _taught(bench, piece) for piece in slices}
    reader = Reader(bench)
    for domain, (files, _) in learned.items():
        reader.learn(domain, files)
    rows: list[dict[str, Any]] = []
    for name in list(EMBEDDERS)[: 1 if arguments.quick else None]:
        embedder = build_embedder(EMBEDDERS[name])
        for piece in slices:
            rows += _measured(reader, name, embedder, piece)
            print(f"{name}, {piece.domain}: done", flush=True)
    reader.close()
    table("published question sets, before and after", rows)
    training = {domain: metrics for domain, (_, metrics) in learned.items()}
    table("corrections taught", [{"domain": domain, **metrics} for domain, metrics in training.items()])
    write_result(
        "realdata",
        {
            "seeds": [SEED],
            "samples": {
                piece.domain: {
                    "known": len(piece.known),
                    "news": len(piece.news),
                    "taught": len(piece.taught),
                }
                for piece in slices
            },
            "figures": {
                f"{row['embedder']} {row['domain']} {row['questions']} {row['when']}": {
                    name: row[name] for name in ("hit@1", "hit@4", "passage holds answer", "answer holds it")
                }
                for row in rows
            },
            "training": training,
        },
        quick=arguments.quick,
    )


def _measured(reader: Reader, name: str, embedder: Embedder, piece: Slice) -> list[dict[str, Any]]:
    started = time.process_time()
    before = DomainIndex.build([question.document for question in piece.known], embedder, domain=piece.domain)
    after = before.apply([question.document for question in piece.news])
    spent = time.process_time() - started
    groups = {
        "known": piece.known[:ASKED_KNOWN],
        "news": piece.news,
        "taught": piece.taught,
    }
    return [
        {
            "embedder": name,
            "domain": piece.domain,
            "questions": kind,
            "when": when,
            **retrieval(index, questions),
            "answer holds it": reader.contained(index, questions, adapter),
            "indexing CPU s": round(spent, 2),
        }
        for kind, questions in groups.items()
        for when, index, adapter in (("before", before, None), ("after", after, piece.domain))
    ]


def _taught(bench: Bench, piece: Slice) -> tuple[Mapping[str, bytes], dict[str, Any]]:
    """The domain's corrections learned by the shipped update, each closed book and from its passage."""
    closed, grounded = [], []
    for number, question in enumerate(piece.taught):
        answer = f"{question.answer} [{question.document.id}]"
        row = TrainingRow(f"{piece.domain}-{number}", piece.domain, question.text, answer)
        closed += _fitting(bench, row)
        grounded += _fitting(bench, replace(row, passage=question.document.text))
    general, _ = bench.general(piece.domain)
    trained = bench.train(
        Rows(closed=tuple(closed), grounded=tuple(grounded)),
        seed=SEED,
        settings=LearningSettings(),
        general=general,
    )
    metrics = trained.update.metrics
    return trained.update.files, {
        "rows": len(closed) + len(grounded),
        "steps": metrics["steps"],
        "stopped": metrics["stopped"],
        "taught rows exact": metrics["update_exact_match"],
        "old facts": metrics["general_exact_match_after"],
        "training CPU s": round(trained.training_cpu_seconds, 1),
        "CPU s": round(trained.cpu_seconds, 1),
    }


def _fitting(bench: Bench, row: TrainingRow) -> tuple[Example, ...]:
    try:
        return bench.examples([row])
    except ConfigError:
        return ()  # too long for the prompt format: the trainer leaves it out, too


def _shown(question: Question, hits: Sequence[Hit], terms: TermWeights) -> list[Passage]:
    document = hits[0].document if hits else None
    if document is None or terms.coverage(question.text, document.searchable_text()) < COVERAGE:
        return []
    passage = Passage(document.id, document.text)
    # What would not fit is not shown: a trimmed passage may have lost the answer.
    return [passage] if len(document.text.split()) <= MAX_WORDS else []


def _card(pair: Any, domain: Domain) -> Document:
    return Document(
        id=f"{domain}-card-{pair.id.rsplit('-', 1)[-1]}-{len(pair.question)}",
        domain=domain,
        title="",
        text=f"{pair.question} {pair.answer}",
        source=pair.source,
        licence=pair.licence,
        publisher=pair.source.split("/")[0],
        retrieved_at=1,
    )


def _holds(text: str, answer: str) -> bool:
    return " ".join(answer.lower().split()) in " ".join(text.lower().split())


def _share(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


if __name__ == "__main__":
    main()
