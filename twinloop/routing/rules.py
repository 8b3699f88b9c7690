"""The router rules: the reviewable part of a release that says which domain a question belongs to."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from schemas.event import DOMAINS, Domain, Frozen
from twinloop.canonical import canonical_json
from twinloop.errors import ArtifactError

_WORD = re.compile(r"\w+")
_BLANKED = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}

Keyword = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Weight = Annotated[float, Field(gt=0, le=100)]
Exemplar = Annotated[str, StringConstraints(min_length=1, max_length=500)]

MAX_RULES_BYTES = 1024 * 1024


class DomainRules(Frozen):
    """What speaks for one domain."""

    priority: Annotated[int, Field(ge=0, le=1000)] = 0
    """Decides between domains that nothing else tells apart; the higher wins."""
    keywords: dict[Keyword, Weight] = Field(default_factory=dict, max_length=5000)
    """Weight by word or phrase; each counts once a question, whatever its case and punctuation."""
    exemplars: Annotated[tuple[Exemplar, ...], Field(max_length=500)] = ()
    """Questions typical of the domain, asked for likeness where keywords are silent or tied."""


class HashingSpec(Frozen):
    """The embedder of the exemplars; stateless, so the vectors need not be stored."""

    kind: Literal["hashing"] = "hashing"
    dim: Annotated[int, Field(ge=64, le=4096)] = 256


class RouterRules(Frozen):
    """Keywords first, likeness to exemplars second, priority and fallback last."""

    version: Literal[1] = 1
    keyword_min_score: Annotated[float, Field(gt=0)] = 1.0
    """Sum of keyword weights a domain needs to be chosen by keywords."""
    similarity_threshold: Annotated[float, Field(ge=0, le=1)] = 0.35
    """Mean cosine likeness to a domain's nearest exemplars needed to be chosen by likeness."""
    top_k: Annotated[int, Field(ge=1, le=50)] = 3
    """How many nearest exemplars the mean is taken over (all, where a domain has fewer)."""
    embedder: HashingSpec = HashingSpec()
    domains: dict[Domain, DomainRules]
    fallback: Domain = "gen"

    @model_validator(mode="after")
    def is_usable(self) -> RouterRules:
        missing = [domain for domain in DOMAINS if domain not in self.domains]
        if missing:
            raise ValueError(f"domains lacks {', '.join(missing)}")
        for domain, rules in self.domains.items():
            spelled: dict[str, str] = {}
            for keyword in rules.keywords:
                words = " ".join(words_of(keyword))
                if not words:
                    raise ValueError(f"{domain}: the keyword {keyword!r} holds no word")
                if words in spelled:
                    raise ValueError(f"{domain}: {keyword!r} and {spelled[words]!r} are the same words")
                spelled[words] = keyword
        return self


def words_of(text: str) -> list[str]:
    """The lower-case words that keywords are compared by: runs of letters, digits and underscores."""
    lowered = text.lower()
    # The same words at a third of the time.
    return lowered.translate(_BLANKED).split() if lowered.isascii() else _WORD.findall(lowered)


def rules_bytes(rules: RouterRules) -> bytes:
    """The canonical bytes whose SHA-256 a release names."""
    return canonical_json(rules)


def read_rules(data: bytes, *, name: str) -> RouterRules:
    """Parses a rules document; raises ArtifactError naming `name` and the field at fault."""
    if len(data) > MAX_RULES_BYTES:
        raise ArtifactError(f"router rules {name}: {len(data)} bytes, at most {MAX_RULES_BYTES} are read")
    try:
        return RouterRules.model_validate_json(data)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        reasons = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'document'}: {f['msg']}" for f in faults[:3])
        raise ArtifactError(f"router rules {name}: {reasons}") from error
