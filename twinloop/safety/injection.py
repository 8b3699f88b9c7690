"""Prompt injection and jailbreaks: known wordings by rule, their kin by a small model that ships with the program."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from twinloop.safety.classifier import Score, Span
from twinloop.safety.ngram_model import NgramModel, load_weights

_RULES_VERSION = "1"
_RULE_SCORE = 0.95
_EARLIER = (
    r"(?:(?:all|any|every|the|my|your|of|these|those)\s+)*"
    r"(?:(?:previous|prior|above|preceding|earlier|former|initial|original|foregoing|other|existing|current|given)\s+)?"
)
_ORDERS = (
    r"(?:instructions?|prompts?|directions?|directives?|guidelines|programming|system\s+messages?|commands?)"
)

_RULES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:ignore|disregard|forget|override|bypass|overrule)\s+{_EARLIER}{_ORDERS}\b",
        r"\b(?:ignore|disregard|forget)\s+(?:everything|anything|all)\s+(?:above|before|you\s+(?:were|have\s+been)\s+told)\b",
        r"\b(?:reveal|show|print|repeat|output|leak|tell\s+me|give\s+me|what\s+(?:is|are|was|were))\s+(?:me\s+)?(?:your|the)\s+(?:full\s+|entire\s+|hidden\s+|secret\s+|initial\s+|original\s+)*(?:system\s+(?:prompt|message|instructions?)|initial\s+(?:prompt|instructions?)|hidden\s+(?:prompt|instructions?))",
        r"\byou\s+(?:are|will)\s+(?:now\s+)?(?:be\s+|act\s+as\s+|become\s+)?(?:in\s+)?(?:dan\b|do\s+anything\s+now|developer\s+mode|jailbr[eo]ken|an?\s+unrestricted|an?\s+unfiltered)",
        r"\bdo\s+anything\s+now\b",
        r"\b(?:developer|god|debug|jailbreak)\s+mode\s+(?:enabled|activated|on|output)\b",
        r"\b(?:without|no|free\s+(?:of|from))\s+(?:any\s+|all\s+)?(?:ethical|moral|content|safety)\s+(?:\w+\s+){0,3}(?:restrictions?|guidelines|filters?|limitations?|constraints?|policies)\b",
        r"\bpretend\s+(?:that\s+)?you\s+(?:are|have)\s+(?:no|not\s+bound|free|an?\s+(?:unrestricted|evil|unfiltered))\b",
        r"\bstay\s+in\s+character\b",
        r"<\|(?:im_start|im_end|system|endoftext|start_header_id|eot_id)\|>|\[/?INST\]|<</?SYS>>",
        r"(?:^|\n)\s*(?:#{1,4}\s*)?(?:system|assistant)\s*(?:prompt|message|override)?\s*:\s*(?:you\s+(?:are|must|will)|ignore|new\s+instructions)",
    )
]
# Letters nobody sees but a tokenizer does: Unicode tag characters spell hidden text.
_HIDDEN = re.compile("[\U000e0020-\U000e007f]{3,}|[\u200b\u200c\u200d\u2060\ufeff]{6,}")


class InjectionClassifier:
    """Score = the model's, or at least 0.95 where a rule matches; `spans` are matches and suspicious windows.

    Not a boundary: rewording gets past it. Keep untrusted text out of instructions and check outputs in code.
    """

    name = "twinloop-injection"

    def __init__(self, *, threshold: float | None = None) -> None:
        self._model = NgramModel(load_weights("injection"), threshold=threshold)
        self.version = f"rules-{_RULES_VERSION}+{self._model.version}"

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score a text, in order."""
        return [
            _with_rules(score, find_wordings(text))
            for text, score in zip(texts, self._model.classify(texts), strict=True)
        ]


def find_wordings(text: str) -> list[Span]:
    """Known injection wordings in a text, also where letters are full-width."""
    spans = [Span(*match.span(), "hidden_text") for match in _HIDDEN.finditer(text)]
    folded = unicodedata.normalize("NFKC", text)
    if len(folded) != len(
        text
    ):  # places would shift: search the text as it stands, and say only that it matched
        matched = any(rule.search(folded) for rule in _RULES)
        return [*spans, Span(0, len(text), "injection")] if matched else spans
    return spans + [Span(*match.span(), "injection") for rule in _RULES for match in rule.finditer(folded)]


def _with_rules(score: Score, found: list[Span]) -> Score:
    if not found:
        return score
    spans = tuple(sorted({*score.spans, *found}, key=lambda span: (span.start, span.end, span.kind)))
    return Score(max(score.score, _RULE_SCORE), True, spans)
