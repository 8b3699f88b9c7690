"""What may be wrong with a text: the safety classifiers behind one small question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.trainer.core.cleaning import Finding
from twinloop.safety.classifier import Classifier


class Screen(Protocol):
    """Looks at texts by field name and says what was found; equal texts give equal findings."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Name and version of every classifier, for the dataset."""

    def findings(self, texts: Mapping[str, str]) -> Sequence[Finding]:
        """Every positive finding, in order of classifier and field."""


class ClassifierScreen:
    """Asks every classifier about every text; `classifiers` are (label, classifier) pairs."""

    def __init__(self, classifiers: Sequence[tuple[str, Classifier]]) -> None:
        self._classifiers = tuple(classifiers)

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(f"{judge.name} {judge.version}" for _, judge in self._classifiers)

    def findings(self, texts: Mapping[str, str]) -> Sequence[Finding]:
        found = []
        for label, judge in self._classifiers:
            scores = judge.classify(list(texts.values()))
            for field, score in zip(texts, scores, strict=True):
                if score.label:
                    found.append(Finding(label, f"{judge.name} {judge.version}", score.score, field))
        return found
