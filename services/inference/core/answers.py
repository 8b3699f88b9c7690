"""From what the model produced to what is published: answers, evaluations and outcome rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from schemas.answers import Answer, AnswerError, Citation, ErrorKind, Evaluation, Timings
from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.event import Sha256
from schemas.outcomes import CitationVerdict, OutcomeBatch, OutcomeRow
from services.inference.core.routed_query import RoutedQuery
from twinloop.routing.stamp import Stamp

_Row = TypeVar("_Row")
ROWS_MAX = 1000
"""Rows of one record: with ids of the greatest length still below the usual limit of 1 MiB a record."""


@dataclass(frozen=True)
class Produced:
    """What one query ended as; `text` or `error`, never both."""

    text: str | None
    citations: tuple[Citation, ...]
    verdict: CitationVerdict | None
    error: AnswerError | None
    retrieval_ms: float = 0.0
    generation_ms: float = 0.0
    adapter: Sha256 | None = None
    index: Sha256 | None = None
    rules: Sha256 | None = None
    passages: tuple[str, ...] = ()
    """Ids of the documents found for the question, best first, whether shown to the model or not."""


@dataclass(frozen=True)
class Judged:
    """The toxicity classifier's word on one text."""

    score: float
    label: bool


def failure(kind: ErrorKind, detail: str) -> Produced:
    """A query that ended without an answer."""
    return Produced(None, (), None, AnswerError(kind=kind, detail=detail[:500]))


def earns_receipt(stamp: Stamp, produced: Produced) -> bool:
    """Whether feedback may quote this answer: only what a user was shown; nobody sees probes and mirrored copies."""
    return stamp.purpose == "user" and produced.text is not None


def outcome_row(
    routed: RoutedQuery, produced: Produced, judged: Judged | None, *, answered_at: int
) -> OutcomeRow:
    stamp = routed.stamp
    return OutcomeRow(
        id=routed.query.id,
        unit=stamp.unit,
        slot=stamp.slot,
        arm=stamp.arm,
        release=stamp.release,
        epoch=stamp.epoch,
        purpose=stamp.purpose,
        domain=stamp.domain,
        error=produced.error.kind if produced.error else None,
        assigned_at=stamp.assigned_at,
        answered_at=answered_at,
        latency_ms=float(max(0, answered_at - stamp.assigned_at)),
        toxicity=judged.score if judged else None,
        toxic=judged.label if judged else None,
        citation=produced.verdict,
        hops=stamp.hops,
    )


def answer_event(
    routed: RoutedQuery, produced: Produced, *, answered_at: int, receipt: str | None, unconfirmed: bool
) -> Answer:
    """The event that tells the asker, or the gatekeeper, how one query ended."""
    stamp, total = routed.stamp, float(max(0, answered_at - routed.stamp.assigned_at))
    timings = Timings(
        queued_ms=max(0.0, total - produced.retrieval_ms - produced.generation_ms),
        retrieval_ms=produced.retrieval_ms,
        generation_ms=produced.generation_ms,
        total_ms=total,
    )
    fields = {
        "query_id": routed.query.id,
        "answered_at": answered_at,
        "text": produced.text,
        "citations": produced.citations,
        "error": produced.error,
        "domain": stamp.domain,
        "release": stamp.release,
        "slot": stamp.slot,
        "arm": stamp.arm,
        "epoch": stamp.epoch,
        "adapter": produced.adapter,
        "index": produced.index,
        "rules": produced.rules,
        "receipt": receipt,
        "timings": timings,
        "hops": stamp.hops,
        "unconfirmed": unconfirmed or stamp.unconfirmed,
    }
    if stamp.purpose == "user":
        return Answer.model_validate(fields)
    return Evaluation.model_validate({**fields, "purpose": stamp.purpose})


def outcome_batches(
    rows: Iterable[tuple[int, OutcomeRow]], *, worker: str, toxicity_classifier: str
) -> tuple[OutcomeBatch, ...]:
    """Batches of one origin partition each, rows in the order given."""
    return tuple(
        OutcomeBatch(origin=origin, worker=worker, toxicity_classifier=toxicity_classifier, rows=grouped)
        for origin, grouped in by_origin(rows)
    )


def assignment_row(routed: RoutedQuery, stamp: Stamp) -> AssignmentRow:
    """The row of a forwarded query: it supersedes every row of the same id with fewer hops."""
    return AssignmentRow(
        id=routed.query.id,
        unit=stamp.unit,
        bucket=stamp.bucket,
        slot=stamp.slot,
        arm=stamp.arm,
        release=stamp.release,
        epoch=stamp.epoch,
        purpose=stamp.purpose,
        domain=stamp.domain,
        assigned_at=stamp.assigned_at,
        deadline_at=routed.deadline_at,
        hops=stamp.hops,
        unconfirmed=stamp.unconfirmed,
    )


def assignment_batches(
    rows: Iterable[tuple[int, AssignmentRow]], *, worker: str
) -> tuple[AssignmentBatch, ...]:
    return tuple(
        AssignmentBatch(origin=origin, router=worker, rows=grouped) for origin, grouped in by_origin(rows)
    )


def by_origin(rows: Iterable[tuple[int, _Row]]) -> list[tuple[int, tuple[_Row, ...]]]:
    """Rows of one origin partition each, at most `ROWS_MAX` together, in the order given."""
    ordered = sorted(rows, key=lambda pair: pair[0])
    pieces: list[tuple[int, tuple[_Row, ...]]] = []
    for origin, group in groupby(ordered, key=lambda pair: pair[0]):
        grouped = tuple(row for _, row in group)
        pieces += [(origin, grouped[start : start + ROWS_MAX]) for start in range(0, len(grouped), ROWS_MAX)]
    return pieces
