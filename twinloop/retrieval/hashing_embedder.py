"""A stateless embedder: signed feature hashing of words, word pairs and letter triples.

Nothing is fitted, so vectors never go stale when the corpus moves. All feature weights are multiples of 1/8:
sums and squared norms are exact in float64, which makes the vectors equal bit for bit on every machine.
Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning" (signed hashing).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from twinloop.errors import ConfigError
from twinloop.retrieval.embedder import Vectors

_WORD = re.compile(r"\w+")
_WORD_WEIGHT = 1.0
_PAIR_WEIGHT = 0.5
_TRIPLE_WEIGHT = 0.25
_STOP_WORD_WEIGHT = 0.125
_STOP_TEXT = """
a an and are as at be by can did do does for from had has have how if in is it its may of on or that the their
there these this those to was were what when where which who whom whose why will with would you your
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_MAX_CACHED_WORDS = 200_000

_Features = tuple[NDArray[np.int64], NDArray[np.float64]]


class HashingEmbedder:
    """Bucket = crc32(feature) mod dim, sign = the hash's top bit; rows are L2-normalised.

    Keeps the features of seen words in a bounded cache, which changes speed and never results.
    """

    def __init__(self, *, dim: int = 1024) -> None:
        if not isinstance(dim, int) or not 64 <= dim <= 65_536:
            raise ConfigError(f"hashing embedder: dim must be from 64 to 65536, not {dim!r}")
        self.name = f"hashing-{dim}"
        self.dim = dim
        recipe = (
            f"twinloop hashing embedder v1 dim={dim} word={_WORD_WEIGHT} pair={_PAIR_WEIGHT} "
            f"triple={_TRIPLE_WEIGHT} stop={_STOP_WORD_WEIGHT} {' '.join(sorted(_STOP_WORDS))}"
        )
        self.digest = hashlib.sha256(recipe.encode()).hexdigest()
        self._words: dict[str, _Features] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim]; an empty text gives a zero row."""
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            self._fill(row, text)
        return rows

    def _fill(self, row: NDArray[np.float32], text: str) -> None:
        words = _WORD.findall(text.lower())
        if not words:
            return
        features = [self._word(word) for word in words]
        features += [self._pair(first, second) for first, second in pairwise(words)]
        buckets = np.concatenate([feature[0] for feature in features])
        weights = np.concatenate([feature[1] for feature in features])
        sums = np.bincount(buckets, weights=weights, minlength=self.dim)
        norm = float(np.sqrt(np.sum(sums * sums)))
        if norm > 0:
            row[:] = sums / norm

    def _word(self, word: str) -> _Features:
        known = self._words.get(word)
        if known is not None:
            return known
        if word in _STOP_WORDS:
            parts = [(f"w {word}", _STOP_WORD_WEIGHT)]
        else:
            framed = f"<{word}>"
            parts = [(f"w {word}", _WORD_WEIGHT)]
            parts += [(f"t {framed[i : i + 3]}", _TRIPLE_WEIGHT) for i in range(len(framed) - 2)]
        return self._remember(word, parts)

    def _pair(self, first: str, second: str) -> _Features:
        pair = f"{first} {second}"  # a word holds no space, so pairs and words never share a cache entry
        known = self._words.get(pair)
        if known is not None:
            return known
        light = first in _STOP_WORDS or second in _STOP_WORDS
        return self._remember(pair, [(f"p {pair}", _STOP_WORD_WEIGHT if light else _PAIR_WEIGHT)])

    def _remember(self, key: str, parts: list[tuple[str, float]]) -> _Features:
        hashes = [zlib.crc32(feature.encode()) for feature, _ in parts]
        buckets = np.array([value % self.dim for value in hashes], dtype=np.int64)
        signs = [1.0 if value >> 31 else -1.0 for value in hashes]
        weights = np.array([sign * weight for sign, (_, weight) in zip(signs, parts, strict=True)])
        if len(self._words) >= _MAX_CACHED_WORDS:
            self._words.clear()
        self._words[key] = (buckets, weights)
        return self._words[key]
