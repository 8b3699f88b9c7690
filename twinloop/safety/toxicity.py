"""Toxic language, by a small model that ships with the program."""

from __future__ import annotations

from collections.abc import Sequence

from twinloop.safety.classifier import Score
from twinloop.safety.ngram_model import NgramModel, load_weights


class ToxicityClassifier:
    """The n-gram model alone; a floor, not a moderator: its confusion matrix stands in this folder's README."""

    name = "twinloop-toxicity"

    def __init__(self, *, threshold: float | None = None) -> None:
        self._model = NgramModel(load_weights("toxicity"), threshold=threshold)
        self.version = self._model.version

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score a text; `spans` are the toxic windows."""
        return self._model.classify(texts)
