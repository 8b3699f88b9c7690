"""Which texts say the same thing again: word shingles, MinHash to find pairs, exact Jaccard to decide them.

Near-duplicates are dropped before training because repetition is what makes a small adapter memorise a line.
Sources: Broder 1997, "On the resemblance and containment of documents"; Dietzfelbinger et al. 1997 (multiply-shift
hashing); Lee et al. 2022, "Deduplicating Training
Data Makes Language Models Better".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.trainer.core.rows import text_key

_WORD = re.compile(r"\w+")
_NAME = re.compile(r"(?<=[\w,;:] )[A-Z]\w+")


@dataclass(frozen=True)
class NearDuplicatePolicy:
    """When two texts count as one."""

    threshold: float = 0.8
    """Jaccard similarity of shingle sets from which two texts are near-duplicates."""
    shingle_characters: int = 5
    """Length of a shingle."""
    bands: int = 32
    """MinHash bands; a pair at the threshold is found with probability 1 - (1 - threshold**rows)**bands."""
    rows: int = 4
    """Hashes per band."""


def shingles(text: str, characters: int) -> frozenset[str]:
    """Overlapping pieces of the text's key; a shorter text is its own only shingle."""
    key = text_key(text)
    return frozenset(key[i : i + characters] for i in range(max(1, len(key) - characters + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared over all, 0..1; two empty sets are equal."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0


def minhash(pieces: Iterable[str], count: int) -> tuple[int, ...]:
    """`count` minima of multiply-shift hashes; equal for equal sets on every machine."""
    digests = b"".join(hashlib.blake2b(piece.encode(), digest_size=8).digest() for piece in pieces)
    values = np.frombuffer(digests, dtype="<u8")
    if not len(values):
        return (0,) * count
    factors, offsets = _coefficients(count)
    hashed = (factors[:, None] * values[None, :] + offsets[:, None]) >> np.uint64(
        32
    )  # wraps at 64 bits, as meant
    return tuple(int(value) for value in hashed.min(axis=1))


def near_duplicates(
    texts: Sequence[tuple[str, str]],
    policy: NearDuplicatePolicy,
    *,
    known: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:
    """For each (id, text) that repeats an earlier one, the id it repeats; the first of a kind stays.

    `known` texts were there before all of `texts` and are never reported themselves. Texts with different numbers,
    bracketed ids or names are different facts, however alike they read. Pure: order and content decide alone.
    """
    index: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    kept: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    repeated: dict[str, str] = {}
    for position, (name, text) in enumerate((*known, *texts)):
        pieces, facts = shingles(text, policy.shingle_characters), fact_marks(text)
        keys = _band_keys(minhash(pieces, policy.bands * policy.rows), policy)
        original = _first_alike(pieces, facts, keys, kept=kept, index=index, threshold=policy.threshold)
        if original is not None and position >= len(known):
            repeated[name] = original
            continue
        kept[name] = (pieces, facts)
        for key in keys:
            index.setdefault(key, []).append(name)
    return repeated


def fact_marks(text: str) -> frozenset[str]:
    """What makes two alike sentences different facts: words with a digit, and names inside a sentence."""
    numbers = {word.casefold() for word in _WORD.findall(text) if any(c.isdigit() for c in word)}
    return frozenset(numbers | {name.casefold() for name in _NAME.findall(text)})


def _first_alike(
    pieces: frozenset[str],
    facts: frozenset[str],
    keys: Sequence[tuple[int, tuple[int, ...]]],
    *,
    kept: Mapping[str, tuple[frozenset[str], frozenset[str]]],
    index: Mapping[tuple[int, tuple[int, ...]], Sequence[str]],
    threshold: float,
) -> str | None:
    candidates = dict.fromkeys(name for key in keys for name in index.get(key, ()))
    for name in candidates:
        other, other_facts = kept[name]
        if facts == other_facts and jaccard(pieces, other) >= threshold:
            return name
    return None


def _band_keys(signature: tuple[int, ...], policy: NearDuplicatePolicy) -> list[tuple[int, tuple[int, ...]]]:
    rows = policy.rows
    return [(band, signature[band * rows : (band + 1) * rows]) for band in range(policy.bands)]


@lru_cache(maxsize=4)
def _coefficients(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Odd factors and any offsets, from a fixed text: no seed to lose."""
    words = b"".join(
        hashlib.blake2b(f"twinloop minhash {number}".encode(), digest_size=16).digest()
        for number in range(count)
    )
    pairs = np.frombuffer(words, dtype="<u8").reshape(count, 2)
    return pairs[:, 0] | np.uint64(1), pairs[:, 1]
