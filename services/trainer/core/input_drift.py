"""Whether a domain is asked about other things than before: the words of recent questions against a reference.

Words are counted in a fixed number of hashed buckets, so no user's words are kept. The distance is the Jensen-Shannon
divergence in bits (Lin 1991), 0 for equal shares and 1 for nothing in common; two windows of 50 questions of one kind
differ by less than 0.1 by chance.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

BUCKETS = 64
_WORD = re.compile(r"\w{4,}")
"""Shorter words are mostly grammar, which every question shares."""


class QuestionWindow(BaseModel):
    """What a domain was asked: mutable state of the ledger, changed by the functions below alone."""

    model_config = ConfigDict(extra="forbid")

    reference: tuple[int, ...] = ()
    """Words a bucket in the questions that the present adapter was made for; empty before there was a window."""
    recent: list[tuple[int, ...]] = []
    """Bucket numbers of each question since, newest last, bounded."""


def note_question(window: QuestionWindow, text: str, *, size: int) -> None:
    """Take in one question; the first `size` of them become the reference."""
    words = _WORD.findall(text.casefold())
    window.recent.append(tuple(zlib.crc32(word.encode()) % BUCKETS for word in words))
    if not window.reference and len(window.recent) >= size:
        rebase(window)
    del window.recent[:-size]


def rebase(window: QuestionWindow) -> None:
    """What was asked of late is what the domain's new adapter is for; without a recent question nothing changes."""
    if window.recent:
        window.reference = _counts(window.recent)
        window.recent = []


def input_shift(window: QuestionWindow, *, least: int) -> float | None:
    """The distance of the recent questions from the reference; None where fewer than `least` say nothing."""
    if not window.reference or len(window.recent) < least:
        return None
    return _divergence(window.reference, _counts(window.recent))


def _counts(questions: Iterable[Sequence[int]]) -> tuple[int, ...]:
    counts = Counter(bucket for question in questions for bucket in question)
    return tuple(counts[bucket] for bucket in range(BUCKETS))


def _divergence(left: Sequence[int], right: Sequence[int]) -> float:
    if not sum(left) or not sum(right):
        return 0.0
    p, q = ([value / sum(counts) for value in counts] for counts in (left, right))
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return sum(_relative_entropy(shares, middle) for shares in (p, q)) / 2


def _relative_entropy(shares: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * math.log2(a / b) for a, b in zip(shares, other, strict=True) if a > 0)
