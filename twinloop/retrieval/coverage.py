"""How much of what a question asks about a passage speaks of: the gate before a passage is shown to the model.

Cosine similarity ranks passages but cannot refuse: a passage about another contract of the same kind scores almost as
high as the right one. Coverage weighs each of the question's content words by its rarity in the index (inverse document
frequency, Spärck Jones 1972), so that the name that only the right passage holds decides.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"\w+")

FUNCTION_WORDS = frozenset(
    "a about all an and any are as at be been by can could did do does for from give had has have how i if in into is "  # noqa: SIM905
    "it its kindly know like many may me much my of on or our please say should show so some such tell than that the "
    "their them then there these they this to told under us was we were what when where which who whom whose why will "
    "with would you your".split()
)
"""English words that say nothing about the subject of a question."""


class TermWeights:
    """Rarity of words over the documents of one index."""

    def __init__(self, document_count: int, frequencies: Counter[str]) -> None:
        self._count, self._frequencies = document_count, frequencies

    @classmethod
    def of(cls, texts: Iterable[str]) -> TermWeights:
        """Count in how many of the texts each content word stands."""
        frequencies: Counter[str] = Counter()
        count = 0
        for text in texts:
            count += 1
            frequencies.update(content_words(text))
        return cls(count, frequencies)

    def weight(self, word: str) -> float:
        return math.log(1.0 + self._count / (1.0 + self._frequencies[word]))

    def coverage(self, question: str, passage: str) -> float:
        """Share in 0..1, by weight, of the question's content words that stand in the passage; 0 without any."""
        asked = content_words(question)
        total = sum(self.weight(word) for word in asked)
        if total == 0.0:
            return 0.0
        return sum(self.weight(word) for word in asked & content_words(passage)) / total


def content_words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - FUNCTION_WORDS
