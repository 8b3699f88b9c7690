"""Which waiting corrections make the next dataset: what defends the adapter against its own users.

The limits are absolute counts a rater, an answer and a dataset: a few hundred planted rows suffice against a model of
any size, so a percentage alone protects nobody (Souly et al. 2025, "Poisoning attacks on LLMs require a near-constant
number of poison samples"). A pure function of rows in log order: equal rows give equal datasets on every machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.trainer.core.near_duplicates import NearDuplicatePolicy, near_duplicates
from services.trainer.core.rows import PendingRow, ReplayRow

FindPassage = Callable[[str, str], str | None]
"""Domain and document id to the document's text, None where the next release will not hold it."""


FindFlaw = Callable[[str, str, str | None], str | None]
"""Question, answer and passage to why the model could never serve them, None where it could."""


def no_flaw(_question: str, _answer: str, _passage: str | None) -> str | None:
    """Takes every row; for models whose tokenizer is not at hand."""
    return None


@dataclass(frozen=True)
class SelectionPolicy:
    """How much one source may teach at once."""

    max_rows_per_rater: int = 5
    """Corrections one rater may have waiting a domain; imported rows are not counted."""
    max_rater_share: float = 0.25
    """Largest share of one dataset a rater may have, in rows of a domain ..."""
    min_rater_rows: int = 2
    """... but never fewer than this many rows, so that small datasets are possible."""
    max_rows_per_answer: int = 8
    """Rows that may teach one and the same answer: many questions with one planted answer are a backdoor's form."""
    max_rows_per_domain: int = 512
    """Rows a dataset takes a domain; the rest wait for the next one."""
    votes_to_override: int = 2
    """Raters who must agree before a fact that a promoted release was trained on is taught anew differently."""
    unknown_citation: Literal["wait", "closed_book"] = "closed_book"
    """A correction that cites no known document is taught without a passage, or waits for its document."""
    citation_patience_s: float = 86_400.0
    """How long it waits before it is refused."""
    near_duplicates: NearDuplicatePolicy = field(default_factory=NearDuplicatePolicy)
    """When two rows count as one."""


@dataclass(frozen=True)
class Chosen:
    """A row of the dataset with the passage its citation points at."""

    row: PendingRow
    document_id: str | None
    passage: str | None


@dataclass(frozen=True)
class Selection:
    """What becomes of every row that was looked at; ids of rows in none of the three stay waiting."""

    kept: tuple[Chosen, ...]
    rejected: Mapping[str, str]
    """Row id to reason."""
    quarantined: Mapping[str, str]


def select_rows(
    rows: Iterable[PendingRow],
    *,
    policy: SelectionPolicy,
    taught: Sequence[ReplayRow],
    find_passage: FindPassage,
    citation_pattern: str,
    now_ms: int,
    find_flaw: FindFlaw = no_flaw,
) -> Selection:
    """Choose from `rows` (one domain); `taught` is the domain's replay buffer."""
    ordered = sorted(rows, key=lambda row: (row.order, row.id))
    rejected: dict[str, str] = {}
    quarantined = dict(_contradictions(ordered, policy=policy, taught=taught))
    rest = [row for row in ordered if row.id not in quarantined]
    rejected.update(_repetitions(rest, policy=policy, taught=taught))
    rest = [row for row in rest if row.id not in rejected]
    chosen = []
    for row in rest:
        document_id, passage = _cited(row, citation_pattern, find_passage)
        if document_id is not None and passage is None and policy.unknown_citation == "wait":
            if now_ms - row.order.timestamp_ms > policy.citation_patience_s * 1000:
                rejected[row.id] = "cites_unknown_document"
            continue
        flaw = find_flaw(row.question, row.answer, None)
        if flaw is not None:
            rejected[row.id] = flaw
            continue
        if passage is not None and find_flaw(row.question, row.answer, passage) is not None:
            passage = None  # too long to be shown with its question: taught closed book
        chosen.append(Chosen(row, document_id, passage))
    rejected.update(_above_quota(chosen, policy))
    kept = [item for item in chosen if item.row.id not in rejected]
    return Selection(tuple(kept[: policy.max_rows_per_domain]), rejected, quarantined)


def over_rater_quota(rows: Iterable[PendingRow], policy: SelectionPolicy) -> list[PendingRow]:
    """The rows past each rater's quota a domain: the first in log order stay, whatever order they were read in."""
    counts: Counter[tuple[str, str]] = Counter()
    over = []
    for row in sorted(rows, key=lambda row: (row.order, row.id)):
        if row.is_imported:
            continue
        counts[(row.domain, row.rater)] += 1
        if counts[(row.domain, row.rater)] > policy.max_rows_per_rater:
            over.append(row)
    return over


def cited_ids(answer: str, citation_pattern: str) -> tuple[str, ...]:
    """Document ids an answer cites, in order of first mention."""
    return tuple(dict.fromkeys(re.findall(citation_pattern, answer)))


def _contradictions(
    rows: Sequence[PendingRow], *, policy: SelectionPolicy, taught: Sequence[ReplayRow]
) -> dict[str, str]:
    """Rows on the losing side of a disagreement about one question; a tie has no winner."""
    doubtful: dict[str, str] = {}
    known = {row.question_key: row.answer_key for row in taught}
    by_question: dict[str, list[PendingRow]] = {}
    for row in rows:
        by_question.setdefault(row.question_key, []).append(row)
    for question, group in by_question.items():
        votes = _votes(group)
        winner = _winner(votes)
        for row in group:
            if len(votes) > 1 and row.answer_key != winner:
                doubtful[row.id] = "contradicts_another_correction"
        old = known.get(question)
        if old is None or winner is None or winner == old:
            continue
        is_vouched, raters = votes[winner]
        if not is_vouched and raters < policy.votes_to_override:
            doubtful.update(
                (row.id, "contradicts_a_taught_fact") for row in group if row.answer_key == winner
            )
    return doubtful


def _votes(group: Sequence[PendingRow]) -> dict[str, tuple[bool, int]]:
    """Answer to (vouched for by an operator, number of different raters)."""
    answers = dict.fromkeys(row.answer_key for row in group)
    return {
        answer: (
            any(row.is_imported for row in group if row.answer_key == answer),
            len({row.rater for row in group if row.answer_key == answer}),
        )
        for answer in answers
    }


def _winner(votes: Mapping[str, tuple[bool, int]]) -> str | None:
    best = max(votes.values())
    winners = [answer for answer, vote in votes.items() if vote == best]
    return winners[0] if len(winners) == 1 else None


def _repetitions(
    rows: Sequence[PendingRow], *, policy: SelectionPolicy, taught: Sequence[ReplayRow]
) -> dict[str, str]:
    first = {(row.question_key, row.answer_key): row.id for row in reversed(taught)}
    reasons: dict[str, str] = {}
    for row in rows:
        original = first.setdefault((row.question_key, row.answer_key), row.id)
        if original != row.id:
            reasons[row.id] = f"duplicate_of:{original}"
    alike = near_duplicates(
        [(row.id, f"{row.question}\n{row.answer}") for row in rows if row.id not in reasons],
        policy.near_duplicates,
        known=[(row.id, f"{row.question}\n{row.answer}") for row in taught],
    )
    reasons.update((name, f"near_duplicate_of:{original}") for name, original in alike.items())
    return reasons


def _cited(
    row: PendingRow, citation_pattern: str, find_passage: FindPassage
) -> tuple[str | None, str | None]:
    ids = cited_ids(row.answer, citation_pattern)
    if not ids:
        return None, None
    for document_id in ids:
        passage = find_passage(row.domain, document_id)
        if passage is not None:
            return document_id, passage
    return ids[0], None


def _above_quota(chosen: Sequence[Chosen], policy: SelectionPolicy) -> dict[str, str]:
    share = max(policy.min_rater_rows, int(policy.max_rater_share * len(chosen)))
    limit = min(policy.max_rows_per_rater, share)
    by_rater: Counter[str] = Counter()
    by_answer: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for item in chosen:
        row = item.row
        if row.is_imported:
            continue
        if by_rater[row.rater] >= limit:
            reasons[row.id] = "rater_quota"
        elif by_answer[row.answer_key] >= policy.max_rows_per_answer:
            reasons[row.id] = "answer_quota"
        else:
            by_rater[row.rater] += 1
            by_answer[row.answer_key] += 1
    return reasons
