"""Whether an answer is right: the same rule for the live path, the probes and the recount."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from schemas.answers import Answer
from twinloop.demo.material import Question

_CITATION = re.compile(r"\[[^\]]*\]")


def is_right(text: str | None, expected: str | None) -> bool:
    """The text without citations equals the expected value; where none is expected, any text is right."""
    if text is None:
        return False
    if expected is None:
        return True
    return " ".join(_CITATION.sub(" ", text).split()).lower() == expected.lower()


def accuracy(answers: Mapping[str, Answer], questions: Sequence[Question]) -> float:
    """Share of right answers; ids and questions stand in the same order."""
    right = [
        is_right(answer.text, question.expected)
        for answer, question in zip(answers.values(), questions, strict=True)
    ]
    return sum(right) / len(right) if right else 0.0
