"""A logistic model over hashed words, word pairs and letter n-grams, with quantised weights kept as JSON.

Long texts are judged window by window and sentence by sentence and the worst counts, so that an insult inside a long
document is not diluted.
The weights are sums over hash buckets: no word can be read back from them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinloop.errors import ArtifactError
from twinloop.safety.classifier import Score, Span, checked_threshold

FEATURES_VERSION = 1
_WORD = re.compile(r"[^\W_]+(?:['*@$!][^\W_]+)*[!?]*|#\w+|[^\w\s]{2,}")
_SENTENCE = re.compile(r"\w[^.!?\n]*[.!?]*")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
_REPEATED = re.compile(r"(.)\1{2,}")
_LEET = str.maketrans("013457@$!", "oieastasi")
_LETTERS_AND_LEET = re.compile(r"(?=.*[^\W\d_])(?=.*[013457@$!])[\w@$!']+")
_SIZES = (3, 4, 5)
_MAX_CACHED_WORDS = 100_000

Buckets = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """How a text is cut: `words` words a window, each starting `step` words after the one before."""

    words: int
    step: int


def windows_of(text: str, cut: Windows) -> list[tuple[int, int]]:
    """Character ranges of the windows of a text, at least one where it has any word."""
    places = [match.span() for match in _WORD.finditer(text)]
    ranges = []
    for first in range(0, max(1, len(places) - cut.words + cut.step), cut.step):
        part = places[first : first + cut.words]
        if part:
            ranges.append((part[0][0], part[-1][1]))
    return ranges


def judged_ranges(text: str, cut: Windows) -> list[tuple[int, int]]:
    """The windows of a text and, where there is more than one, its sentences of at most a window's length."""
    windows = windows_of(text, cut)
    if len(windows) < 2:
        return windows
    sentences = [
        match.span() for match in _SENTENCE.finditer(text) if len(_WORD.findall(match.group())) <= cut.words
    ]
    return list(dict.fromkeys([*windows, *sentences]))


class NgramFeatures:
    """Text to hash buckets (crc32 mod `dim`); remembers words it has seen, within bounds."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._words: dict[str, Buckets] = {}

    def buckets(self, text: str) -> tuple[Buckets, NDArray[np.float64]]:
        """(distinct buckets, their weights): 1 + ln(count), scaled to unit length."""
        words = [
            _plain(word) for word in _WORD.findall(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)))
        ]
        if not words:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        parts = [self._word(word) for word in words]
        parts.append(np.array([self._hash(f"p {a} {b}") for a, b in pairwise(words)], dtype=np.int64))
        found, counts = np.unique(np.concatenate(parts), return_counts=True)
        weights = 1.0 + np.log(counts)
        return found, weights / np.sqrt(np.sum(weights * weights))

    def _word(self, word: str) -> Buckets:
        known = self._words.get(word)
        if known is None:
            framed = f"<{word}>"
            grams = {framed[i : i + size] for size in _SIZES for i in range(len(framed) - size + 1)}
            known = np.array([self._hash(f"w {word}"), *sorted(map(self._hash, grams))], dtype=np.int64)
            if len(self._words) >= _MAX_CACHED_WORDS:
                self._words.clear()
            self._words[word] = known
        return known

    def _hash(self, feature: str) -> int:
        return zlib.crc32(feature.encode()) % self.dim


@dataclass(frozen=True)
class NgramWeights:
    """What a weights file holds; `digest` is the SHA-256 of its bytes."""

    digest: str
    label: str
    cut: Windows
    threshold: float
    bias: float
    values: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """The weights file: JSON, int8 values in base64 with one scale."""
        scale = float(np.abs(self.values).max()) / 127 or 1.0
        quantised = np.round(self.values / scale).astype(np.int8)
        document = {
            "format": "twinloop ngram weights",
            "features": FEATURES_VERSION,
            "label": self.label,
            "window": [self.cut.words, self.cut.step],
            "threshold": self.threshold,
            "bias": self.bias,
            "scale": scale,
            "dim": len(self.values),
            "int8": base64.b64encode(quantised.tobytes()).decode(),
        }
        return json.dumps(document, sort_keys=True, indent=0).encode() + b"\n"


def parse_weights(data: bytes, *, what: str) -> NgramWeights:
    """Read a weights file; raises ArtifactError naming `what` where it is malformed or of another version."""
    try:
        raw = json.loads(data)
        if raw["features"] != FEATURES_VERSION:
            raise ValueError(
                f"made for features {raw['features']}, this program has {FEATURES_VERSION}; train again"
            )
        quantised = np.frombuffer(base64.b64decode(raw["int8"], validate=True), dtype=np.int8)
        if len(quantised) != raw["dim"]:
            raise ValueError(f"{len(quantised)} weights, dim says {raw['dim']}")
        return NgramWeights(
            digest=hashlib.sha256(data).hexdigest(),
            label=str(raw["label"]),
            cut=Windows(int(raw["window"][0]), int(raw["window"][1])),
            threshold=float(raw["threshold"]),
            bias=float(raw["bias"]),
            values=quantised.astype(np.float32) * np.float32(raw["scale"]),
        )
    except (ValueError, KeyError, TypeError, IndexError, binascii.Error) as error:
        raise ArtifactError(f"classifier weights {what}: {error}") from error


class NgramModel:
    """Probability by window and sentence; a text's score is the worst of them."""

    def __init__(self, weights: NgramWeights, *, threshold: float | None = None) -> None:
        chosen = weights.threshold if threshold is None else threshold
        self.threshold = checked_threshold(chosen, what=f"classifier {weights.label}")
        self.version = f"ngram-{FEATURES_VERSION}-{weights.digest[:12]}-t{self.threshold:.4g}"
        self._weights = weights
        self._features = NgramFeatures(len(weights.values))

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score a text; `spans` are the windows and sentences at or above the threshold."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Score:
        scored = [
            (self.probability(text[start:end]), start, end)
            for start, end in judged_ranges(text, self._weights.cut)
        ]
        best = max((probability for probability, _, _ in scored), default=0.0)
        spans = tuple(
            Span(start, end, self._weights.label) for value, start, end in scored if value >= self.threshold
        )
        return Score(best, best >= self.threshold, spans)

    def probability(self, window: str) -> float:
        """The model's probability for one window taken as a whole."""
        buckets, weights = self._features.buckets(window)
        if len(buckets) == 0:
            return 0.0
        logit = float(np.sum(self._weights.values[buckets] * weights)) + self._weights.bias
        return 1.0 / (1.0 + float(np.exp(-np.clip(logit, -30.0, 30.0))))


def load_weights(name: str) -> NgramWeights:
    """The weights shipped as `weights/<name>.json`; raises ArtifactError where they cannot be read."""
    path = Path(__file__).parent / "weights" / f"{name}.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"classifier weights {path}: {error}; reinstall, or train them again") from error
    return parse_weights(data, what=str(path))


def _plain(word: str) -> str:
    """Lower case, letters for look-alike digits and signs inside a word, no letter more than twice in a row."""
    word = word.lower()
    if _LETTERS_AND_LEET.fullmatch(word):
        word = word.translate(_LEET)
    return _REPEATED.sub(r"\1\1", word)
