"""Near-duplicates: found by content alone, and never two different facts."""

from __future__ import annotations

import random

from services.trainer.core.near_duplicates import (
    NearDuplicatePolicy,
    fact_marks,
    jaccard,
    minhash,
    near_duplicates,
    shingles,
)

POLICY = NearDuplicatePolicy()
LONG = "the tenant may end the contract early if the landlord fails to repair serious defects in good time after notice"


def test_an_edited_copy_is_found_and_a_new_text_is_not() -> None:
    texts = [
        ("a", LONG),
        ("b", LONG.replace("serious", "severe")),
        ("c", "a wholly different sentence about tax law"),
    ]

    assert near_duplicates(texts, POLICY) == {"b": "a"}


def test_texts_that_were_there_before_are_found_and_never_reported() -> None:
    assert near_duplicates([("b", LONG)], POLICY, known=[("old", LONG), ("older", LONG)]) == {"b": "old"}


def test_numbers_ids_and_names_make_a_different_fact() -> None:
    assert fact_marks("What is due under contract Velmo? 42 days [law-0042]") == {"velmo", "42", "0042"}
    for other in (LONG + " of 42 days", LONG + " to Velmo"):
        assert near_duplicates([("a", LONG + " of 41 days"), ("b", other)], POLICY) == {}


def test_minhash_estimates_similarity() -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(300)]
    one, other = frozenset(words[:200]), frozenset(words[100:])
    equal = sum(a == b for a, b in zip(minhash(one, 512), minhash(other, 512), strict=True)) / 512

    assert abs(equal - jaccard(one, other)) < 0.08


def test_a_signature_is_the_same_on_every_machine() -> None:
    assert minhash(["twin", "loop"], 3) == minhash(["loop", "twin"], 3)
    assert minhash(["twin", "loop"], 3) == (1902525317, 1991582501, 1361827541)
    assert minhash([], 2) == (0, 0)


def test_pairs_above_the_threshold_are_found_nearly_always() -> None:
    rng = random.Random(2)
    missed = 0
    for _ in range(60):
        words = ["".join(rng.choices("abcdefghijkl", k=5)) for _ in range(40)]
        edited = words[:]
        edited[rng.randrange(40)] = "other"
        one, other = " ".join(words), " ".join(edited)
        assert jaccard(shingles(one, 5), shingles(other, 5)) > POLICY.threshold
        missed += near_duplicates([("a", one), ("b", other)], POLICY) == {}

    assert missed == 0
