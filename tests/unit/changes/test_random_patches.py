"""Five hundred random patches: what is applied is in the list and in its bounds, and can be taken back to the byte."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from schemas.changes import PatchOperation
from tests.unit.changes.documents import shipped_policy, small_documents
from twinloop.changes.allowed_paths import AuthorKind
from twinloop.changes.patching import Documents, apply_change, inverse
from twinloop.changes.refusal import ChangeRefused

PATCHES = 500
WORDS = ("escrow", "lien", "bond yield", "fever", "a/b", "tilde~", "", "-", "x" * 120)
NUMBERS = (0, 1, 2, 2.5, -1, 4.99, 5, 5.01, 50, 0.1, 0.09, 0.35, 1e9, True, "3", None)
DOMAINS = ("law", "med", "fin", "gen", "tax")
OUTSIDE = (
    *("/gates/qa/min_pass_rate", "/policy/canary/alpha_abort", "/rules/embedder/dim", "/rules/version"),
    *("/rules/embedder/kind", "/prompt/citation_pattern", "/prompt/kind", "/prompt/end_tag", "/adapters/law"),
    *("/rules/domains/law", "/rules/domains", "/rules", "/rules/domains/law/keywords", "/prompt/none"),
)
NUMBERED = (
    *("/rules/keyword_min_score", "/rules/similarity_threshold", "/rules/top_k", "/prompt/max_passages"),
    *("/prompt/min_passage_score", "/prompt/max_new_tokens", "/prompt/max_prompt_tokens"),
)


def random_patch(chance: random.Random) -> list[PatchOperation]:
    return [random_step(chance) for _ in range(chance.choice((1, 1, 1, 2, 3, 6)))]


def random_step(chance: random.Random) -> PatchOperation:
    domain = chance.choices(DOMAINS, weights=(4, 4, 4, 4, 1))[0]
    known = small_documents().rules.domains
    word = chance.choice(WORDS)
    if domain in known and chance.random() < 0.5:
        word = chance.choice(list(known[domain].keywords))  # type: ignore[index]
    word = word.replace("~", "~0").replace("/", "~1")
    path, value = chance.choice(
        (
            (f"/rules/domains/{domain}/keywords/{word}", chance.choice(NUMBERS)),
            (f"/rules/domains/{domain}/keywords/{word}", chance.uniform(0.1, 5)),
            (
                f"/rules/domains/{domain}/exemplars/{chance.choice('-0123459x')}",
                chance.choice((word, f"Who has the {word}?")),
            ),
            (f"/rules/domains/{domain}/priority", chance.choice(NUMBERS)),
            (chance.choice(NUMBERED), chance.choice(NUMBERS)),
            ("/rules/fallback", domain),
            ("/prompt/system", chance.choice(("short", "Answer from the passages alone, please.", 7))),
            (chance.choice(OUTSIDE), chance.choice(NUMBERS)),
        )
    )
    op = chance.choices(("add", "replace", "remove", "test"), weights=(5, 5, 2, 1))[0]
    return PatchOperation.model_validate({"op": op, "path": path, "value": value})


def outside_of_the_list(documents: Documents) -> dict[str, Any]:
    """Everything that nobody may change, spelled out apart from the code under test."""
    plain: Any = documents.plain()
    rules, prompt = plain["rules"], plain["prompt"]
    for name in ("keyword_min_score", "similarity_threshold", "top_k", "fallback"):
        del rules[name]
    for domain in rules["domains"].values():
        del domain["keywords"], domain["exemplars"], domain["priority"]
    for name in ("max_passages", "min_passage_score", "min_passage_coverage", "max_new_tokens"):
        del prompt[name]
    del prompt["max_prompt_tokens"], prompt["system"]
    return dict(plain)


def out_of_bounds(before: Documents, after: Documents) -> list[str]:
    """What has changed to something that it may not be."""
    found = []
    for domain, rules in after.rules.domains.items():
        was = before.rules.domains[domain]
        found += [w for w, x in rules.keywords.items() if was.keywords.get(w) != x and not 0.1 <= x <= 5]
        found += [text for text in set(rules.exemplars) - set(was.exemplars) if not 5 <= len(text) <= 300]
        found += [domain] if rules.priority != was.priority and not 0 <= rules.priority <= 100 else []
    new, old = after.rules, before.rules
    limits = {
        "keyword_min_score": (new.keyword_min_score, old.keyword_min_score, 0.5, 5),
        "similarity_threshold": (new.similarity_threshold, old.similarity_threshold, 0.1, 0.9),
        "top_k": (new.top_k, old.top_k, 1, 10),
        "max_passages": (after.prompt.max_passages, before.prompt.max_passages, 0, 8),
        "min_passage_score": (after.prompt.min_passage_score, before.prompt.min_passage_score, 0, 1),
        "max_new_tokens": (after.prompt.max_new_tokens, before.prompt.max_new_tokens, 1, 512),
        "max_prompt_tokens": (after.prompt.max_prompt_tokens, before.prompt.max_prompt_tokens, 64, 8192),
        "system": (len(after.prompt.system), len(before.prompt.system), 20, 2000),
    }
    found += [
        name
        for name, (is_now, was_it, low, high) in limits.items()
        if is_now != was_it and not low <= is_now <= high
    ]
    return found


@pytest.mark.parametrize("author", ["person", "program"])
def test_nothing_out_of_the_list_or_its_bounds_is_ever_applied(author: AuthorKind) -> None:
    base, policy, chance = small_documents(), shipped_policy(), random.Random(42)
    unchangeable = outside_of_the_list(base)
    ends: Counter[str] = Counter()
    for _ in range(PATCHES):
        patch = random_patch(chance)
        try:
            made = apply_change(base, patch, policy, author=author)
        except ChangeRefused as refused:
            ends[refused.code] += 1
            continue
        ends["applied"] += 1
        assert outside_of_the_list(made) == unchangeable, patch
        assert out_of_bounds(base, made) == [], patch
        if author == "program":
            assert made.prompt == base.prompt
            assert made.rules.fallback == base.rules.fallback
        back = apply_change(made, inverse(base, made), policy, author="person")
        assert back.digests == base.digests
        assert made.digests != base.digests
    assert ends["applied"] >= (50 if author == "person" else 15), ends
    assert min(ends[code] for code in ("path", "bounds", "not-applicable")) >= 10, ends
    if author == "program":
        assert ends["author"] >= 10
