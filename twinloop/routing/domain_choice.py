"""Which domain a question belongs to by one release's rules: keywords first, likeness only where needed."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray

from schemas.event import DOMAINS, Domain
from twinloop.retrieval.hashing_embedder import HashingEmbedder
from twinloop.routing.rules import RouterRules, words_of

Phrase = tuple[bytes, int]
"""A keyword of several words in UTF-8, between blanks, and what it speaks for."""

_MOST_KEPT = 8192
"""Sets of known words, and sums of votes, whose meaning is remembered: of the published question sets, each question
taken once, three in five say known words that an earlier one said. Beyond it they are worked out each time."""

_ASCII_WORDS = bytes(
    ord(chr(code).lower()) if chr(code).isalnum() or chr(code) == "_" else ord(" ") for code in range(128)
) + bytes(128)
"""Lower-cases ASCII and blanks what is no word."""


class DomainChooser:
    """Rules made ready to ask. Equal rules give equal choices on every machine."""

    def __init__(self, rules: RouterRules) -> None:
        self._threshold = rules.similarity_threshold
        self._fallback = rules.fallback
        self._priorities = [rules.domains[domain].priority for domain in DOMAINS]
        self._read_keywords(rules)
        self._embedder = HashingEmbedder(dim=rules.embedder.dim)
        self._exemplars = [self._embedder.embed(rules.domains[domain].exemplars) for domain in DOMAINS]
        self._top_k = rules.top_k

    def choose(self, text: str) -> Domain:
        """The domain of a question; never fails, the fallback is for what nothing speaks for."""
        words = _words(text)
        said = self._known.intersection(words)
        settled = self._settled.get(said)
        if settled is not None:
            return settled
        leaders, is_by_words_alone = self._by_keywords(words, said)
        if len(leaders) == 1:
            found = DOMAINS[leaders[0]]
            if is_by_words_alone and len(self._settled) < _MOST_KEPT:
                self._settled[said] = found
            return found
        likest = self._by_likeness(text, leaders or range(len(DOMAINS)))
        if likest is not None:
            return DOMAINS[likest]
        if not leaders:
            return self._fallback
        return DOMAINS[max(leaders, key=lambda index: (self._priorities[index], -index))]

    def _by_keywords(self, words: Sequence[bytes], said: frozenset[bytes]) -> tuple[tuple[int, ...], bool]:
        """The domains with the highest score, if it suffices: none, one, or several that tie.

        And whether `said`, the known ones among the words, told all of it: no order of words mattered.
        """
        votes, phrases = self._sums.get(said) or self._summed(said)
        if phrases:
            spelled = b" %b " % b" ".join(words)
            for phrase, more in phrases:
                if phrase in spelled:
                    votes += more
        leaders = self._leaders.get(votes)
        return (self._told(votes) if leaders is None else leaders), not phrases

    def _summed(self, said: frozenset[bytes]) -> tuple[int, tuple[Phrase, ...]]:
        """What these words speak for, and the phrases they hint at."""
        phrases = [phrase for word in said for phrase in self._phrases.get(word, ())]
        found = sum(self._votes[word] for word in said), tuple(phrases)
        if len(self._sums) < _MOST_KEPT:
            self._sums[said] = found
        return found

    def _told(self, votes: int) -> tuple[int, ...]:
        lane = (1 << self._bits) - 1
        scores = [votes >> self._bits * index & lane for index in range(len(DOMAINS))]
        best = max(scores)
        found = tuple(index for index, score in enumerate(scores) if score == best >= self._least)
        if len(self._leaders) < _MOST_KEPT:
            self._leaders[votes] = found
        return found

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
        """Weights become votes: one integer that holds all domains' scores side by side, `_bits` wide each.

        Adding up a question's keywords is one sum then. It is exact, so that no order of words and no machine's
        rounding can change a choice: a binary fraction is an integer of the smallest unit among the weights.
        """
        weights = [weight for domain in DOMAINS for weight in rules.domains[domain].keywords.values()]
        unit = max([float(weight).as_integer_ratio()[1] for weight in weights], default=1)
        self._bits = int(sum(map(Fraction, weights)) * unit).bit_length() + 1
        self._least = ceil(Fraction(rules.keyword_min_score) * unit)
        phrases: dict[str, int] = {}
        for index, domain in enumerate(DOMAINS):
            for keyword, weight in rules.domains[domain].keywords.items():
                phrase, vote = " ".join(words_of(keyword)), int(Fraction(weight) * unit) << self._bits * index
                phrases[phrase] = phrases.get(phrase, 0) + vote
        self._votes: dict[bytes, int] = {}
        """By word in UTF-8 what it speaks for on its own; 0 where it is only known from phrases."""
        self._phrases: dict[bytes, list[Phrase]] = {}
        """By the word that hints at them."""
        for phrase, vote in phrases.items():
            # The longest word, because it is the rarest by a fair guess: "year" and not "what".
            hint = max(phrase.split(" "), key=len).encode()
            if " " in phrase:
                self._phrases.setdefault(hint, []).append((f" {phrase} ".encode(), vote))
                self._votes.setdefault(hint, 0)
            else:
                self._votes[hint] = vote
        self._known = frozenset(self._votes)
        self._sums: dict[frozenset[bytes], tuple[int, tuple[Phrase, ...]]] = {}
        self._leaders: dict[int, tuple[int, ...]] = {}
        self._settled: dict[frozenset[bytes], Domain] = {}
        """By the known words said, where they hint at no phrase and one domain leads."""


def _words(text: str) -> list[bytes]:
    """`words_of` in UTF-8; bytes take half the time."""
    if text.isascii():
        return text.encode().translate(_ASCII_WORDS).split()
    return [word.encode("utf-8", "surrogatepass") for word in words_of(text)]
