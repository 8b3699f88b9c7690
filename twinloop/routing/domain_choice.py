"""Which domain a question belongs to by one release's rules: keywords first, likeness only where needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.event import DOMAINS, Domain
from twinloop.retrieval.hashing_embedder import HashingEmbedder
from twinloop.routing.rules import RouterRules, words_of

Votes = tuple[tuple[int, float], ...]
"""(index of the domain in DOMAINS, weight) for one keyword."""


_ASCII_WORDS = bytes(
    ord(chr(code).lower()) if chr(code).isalnum() or chr(code) == "_" else ord(" ") for code in range(128)
) + bytes(128)
"""Lower-cases ASCII and blanks what is no word."""


class DomainChooser:
    """Rules made ready to ask. Equal rules give equal choices on every machine."""

    def __init__(self, rules: RouterRules) -> None:
        self._min_score = rules.keyword_min_score
        self._threshold = rules.similarity_threshold
        self._fallback = rules.fallback
        self._priorities = [rules.domains[domain].priority for domain in DOMAINS]
        self._read_keywords(rules)
        self._embedder = HashingEmbedder(dim=rules.embedder.dim)
        self._exemplars = [self._embedder.embed(rules.domains[domain].exemplars) for domain in DOMAINS]
        self._top_k = rules.top_k

    def choose(self, text: str) -> Domain:
        """The domain of a question; never fails, the fallback is for what nothing speaks for."""
        leaders = self._by_keywords(text)
        if len(leaders) == 1:
            return DOMAINS[leaders[0]]
        likest = self._by_likeness(text, leaders or range(len(DOMAINS)))
        if likest is not None:
            return DOMAINS[likest]
        if not leaders:
            return self._fallback
        return DOMAINS[max(leaders, key=lambda index: (self._priorities[index], -index))]

    def _by_keywords(self, text: str) -> list[int]:
        """The domains with the highest score, if it suffices: none, one, or several that tie."""
        # The same words as words_of() finds; bytes take half the time.
        ascii_words = text.encode().translate(_ASCII_WORDS).split() if text.isascii() else None
        words = (
            [word.encode("utf-8", "surrogatepass") for word in words_of(text)]
            if ascii_words is None
            else ascii_words
        )
        said = self._known.intersection(words)
        if not said:
            return []
        scores = [0.0] * len(DOMAINS)
        spelled = b""
        # Sorted: a set's order, and so a sum's last bit, differs from process to process.
        for word in sorted(said):
            for phrase, votes in self._keywords[word]:
                if phrase is not None:
                    spelled = spelled or b" %b " % b" ".join(words)
                    if phrase not in spelled:
                        continue
                for index, weight in votes:
                    scores[index] += weight
        best = max(scores)
        if best < self._min_score:
            return []
        return [index for index, score in enumerate(scores) if score == best]

    def _by_likeness(self, text: str, candidates: Sequence[int]) -> int | None:
        """The candidate with the likest exemplars, if they are like enough."""
        if not any(self._exemplars[index].size for index in candidates):
            return None
        vector = self._embedder.embed([text])[0]
        likeness = [(self._mean_likeness(self._exemplars[index], vector), index) for index in candidates]
        best, found = max(likeness, key=lambda pair: (pair[0], self._priorities[pair[1]], -pair[1]))
        return found if best >= self._threshold else None

    def _mean_likeness(self, exemplars: NDArray[np.float32], vector: NDArray[np.float32]) -> float:
        if not len(exemplars):
            return 0.0
        similarities = np.sort(exemplars @ vector)[::-1][: self._top_k]
        # Rounded: a sum's last bits differ between processors, and a choice must not.
        return round(float(similarities.mean()), 5)

    def _read_keywords(self, rules: RouterRules) -> None:
        self._keywords: dict[bytes, list[tuple[bytes | None, Votes]]] = {}
        """By first word in UTF-8: the phrase between blanks (None for a single word) and what it speaks for."""
        votes: dict[str, list[tuple[int, float]]] = {}
        for index, domain in enumerate(DOMAINS):
            for keyword, weight in rules.domains[domain].keywords.items():
                votes.setdefault(" ".join(words_of(keyword)), []).append((index, weight))
        for phrase, found in votes.items():
            first, _, more = phrase.partition(" ")
            spelled = f" {phrase} ".encode() if more else None
            self._keywords.setdefault(first.encode(), []).append((spelled, tuple(found)))
        self._known = frozenset(self._keywords)
