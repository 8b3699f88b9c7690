"""Questions to answers under a given release: retrieve, prompt, generate, cite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from schemas.answers import AnswerError, Citation
from schemas.event import Domain, Sha256
from services.inference.core.answers import Produced, failure
from services.inference.core.citations import citation_verdict
from services.inference.releases import ReadyRelease
from twinloop.model_runtime.generation import Generation, GenerationItem, Generator
from twinloop.model_runtime.prompt import ChatTemplate, Passage, parse_answer, render
from twinloop.retrieval.index import DomainIndex, Hit

GeneratorOf = Callable[[int, int], Generator]
"""A generator for `max_new_tokens` and `max_prompt_tokens`."""

_REFUSALS = {
    "prompt_too_long": "the question and its passages are longer than the model can read",
    "prompt_empty": "the question holds nothing the model can read",
}


@dataclass(frozen=True)
class Asked:
    """One question, the release that answers it and the domain whose adapter and index it uses."""

    question: str
    domain: Domain
    release: ReadyRelease
    use_retrieval: bool = True
    use_adapter: bool = True


@dataclass(frozen=True)
class _Prompted:
    asked: Asked
    passages: tuple[Passage, ...]
    found: tuple[str, ...]
    item: GenerationItem


class AnswerEngine:
    """Answers batches that may mix releases and domains; calls from several threads are taken in turn."""

    def __init__(
        self,
        generator_of: GeneratorOf,
        *,
        chat: ChatTemplate | None,
        retrieve: int,
        clock_ms: Callable[[], float],
    ) -> None:
        self._generator_of, self._chat, self._retrieve, self._clock_ms = (
            generator_of,
            chat,
            retrieve,
            clock_ms,
        )
        self._generators: dict[tuple[int, int], Generator] = {}
        self._turn = threading.Lock()

    def answer(self, batch: Sequence[Asked]) -> list[Produced]:
        """One result a question, in order; the same batch in the same order gives the same answers."""
        with self._turn:
            started = self._clock_ms()
            hits = self._retrieved(batch)
            prompted = [self._prompt(asked, found) for asked, found in zip(batch, hits, strict=True)]
            retrieved = self._clock_ms()
            generations = self._generated(prompted)
            generated = self._clock_ms()
        retrieval_ms, generation_ms = retrieved - started, generated - retrieved
        return [
            _produced(each, generation, retrieval_ms=retrieval_ms, generation_ms=generation_ms)
            for each, generation in zip(prompted, generations, strict=True)
        ]

    def _retrieved(self, batch: Sequence[Asked]) -> list[list[Hit]]:
        """Passages of each question; questions of one index are looked up together."""
        hits: list[list[Hit]] = [[] for _ in batch]
        rows: dict[Sha256, list[int]] = {}
        indexes: dict[Sha256, DomainIndex] = {}
        for row, asked in enumerate(batch):
            digest = asked.release.release.indexes[asked.domain]
            if asked.use_retrieval:
                rows.setdefault(digest, []).append(row)
                indexes[digest] = asked.release.indexes[asked.domain]
        for digest, members in rows.items():
            found = indexes[digest].search([batch[row].question for row in members], self._retrieve)
            for row, each in zip(members, found, strict=True):
                hits[row] = list(each)
        return hits

    def _prompt(self, asked: Asked, hits: Sequence[Hit]) -> _Prompted:
        form = asked.release.prompt
        near = [hit for hit in hits if _is_near(asked, hit)][: form.max_passages]
        passages = tuple(Passage(hit.document.id, hit.document.text) for hit in near)
        text = render(form, asked.question, passages, chat=self._chat)
        adapter = asked.release.release.adapters[asked.domain] if asked.use_adapter else None
        found = tuple(hit.document.id for hit in hits)
        return _Prompted(asked, passages, found, GenerationItem(text, adapter=adapter))

    def _generated(self, prompted: Sequence[_Prompted]) -> list[Generation]:
        generations: list[Generation | None] = [None] * len(prompted)
        limits = [
            (each.asked.release.prompt.max_new_tokens, each.asked.release.prompt.max_prompt_tokens)
            for each in prompted
        ]
        order = sorted(range(len(prompted)), key=lambda row: limits[row])
        for limit, group in groupby(order, key=lambda row: limits[row]):
            rows = list(group)
            made = self._generator(limit).answer_batch([prompted[row].item for row in rows])
            for row, generation in zip(rows, made, strict=True):
                generations[row] = generation
        return [generation for generation in generations if generation is not None]

    def _generator(self, limit: tuple[int, int]) -> Generator:
        if limit not in self._generators:
            self._generators[limit] = self._generator_of(*limit)
        return self._generators[limit]


def _is_near(asked: Asked, hit: Hit) -> bool:
    form = asked.release.prompt
    if hit.score < form.min_passage_score:
        return False
    terms = asked.release.terms[asked.domain]
    return terms.coverage(asked.question, hit.document.searchable_text()) >= form.min_passage_coverage


def _produced(
    prompted: _Prompted, generation: Generation, *, retrieval_ms: float, generation_ms: float
) -> Produced:
    asked = prompted.asked
    digests: Mapping[str, Sha256] = {
        "adapter": asked.release.release.adapters[asked.domain],
        "index": asked.release.release.indexes[asked.domain],
        "rules": asked.release.release.rules,
    }
    ended = _ended(prompted, generation)
    return Produced(
        ended.text,
        ended.citations,
        ended.verdict,
        ended.error,
        retrieval_ms=retrieval_ms,
        generation_ms=generation_ms,
        passages=prompted.found,
        **digests,
    )


def _ended(prompted: _Prompted, generation: Generation) -> Produced:
    asked, form = prompted.asked, prompted.asked.release.prompt
    if generation.refused is not None:
        return failure("model", _REFUSALS.get(generation.refused, generation.refused))
    if not generation.finished:
        return failure("truncated", f"the model did not end its answer within {form.max_new_tokens} tokens")
    parsed = parse_answer(form, generation.text)
    if not parsed.text:
        return failure("empty", "the model ended its answer without saying anything")
    index = asked.release.indexes[asked.domain]
    documents = {cited: index.document(cited) for cited in parsed.citations}
    known = {cited: document for cited, document in documents.items() if document is not None}
    shown = {passage.document_id for passage in prompted.passages}
    verdict = citation_verdict(
        parsed.text,
        cited=parsed.citations,
        cited_texts={cited: document.text for cited, document in known.items()},
        has_passages=bool(shown),
    )
    citations = tuple(
        Citation(document_id=cited, title=document.title, source=document.source, retrieved=cited in shown)
        for cited, document in known.items()
    )
    return Produced(generation.text.strip(), citations, verdict, None)


def failed_batch(size: int, error: Exception) -> list[Produced]:
    """What a batch becomes when the runtime itself fails: an error answer each, none lost."""
    detail = AnswerError(kind="model", detail=f"the model runtime failed: {type(error).__name__}")
    return [Produced(None, (), None, detail) for _ in range(size)]
