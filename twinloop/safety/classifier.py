"""What judges texts, and the choice of a judge by its specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twinloop.errors import ConfigError


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a text and what was found there."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Score:
    """How sure a classifier is that a text is of its kind, its own yes or no, and where it looked."""

    score: float
    """From 0 to 1."""
    label: bool
    """True where `score` reaches the classifier's threshold."""
    spans: tuple[Span, ...] = ()


class Classifier(Protocol):
    """Texts in, one score a text out; equal versions promise equal scores."""

    @property
    def name(self) -> str:
        """Short name for people and metrics."""

    @property
    def version(self) -> str:
        """Changes with everything the scores depend on: rules, weights (their digest) and threshold."""

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score a text, in order; a text's score does not depend on the others."""


def build_classifier(spec: Mapping[str, object]) -> Classifier:
    """The classifier that `spec` describes; raises ConfigError for an unknown kind or key.

    `{"kind": "pii"}`, `{"kind": "toxicity", "threshold": 0.7}`, `{"kind": "injection"}` (thresholds are optional),
    or `{"kind": "huggingface", "model": name or folder, "revision": commit, "positive_labels": [...],
    "threshold": 0.5}`.
    """
    options: dict[str, Any] = dict(spec)
    kind = options.pop("kind", None)
    try:
        if kind == "pii":
            from twinloop.safety.pii import PiiClassifier

            return PiiClassifier(**options)
        if kind == "toxicity":
            from twinloop.safety.toxicity import ToxicityClassifier

            return ToxicityClassifier(**options)
        if kind == "injection":
            from twinloop.safety.injection import InjectionClassifier

            return InjectionClassifier(**options)
        if kind == "huggingface":
            from twinloop.safety.hf_classifier import open_hf_classifier

            return open_hf_classifier(**options)
    except TypeError as error:
        raise ConfigError(f"classifier {kind!r}: {error}") from error
    raise ConfigError(f"classifier kind {kind!r} is unknown: use pii, toxicity, injection or huggingface")


def checked_threshold(value: object, *, what: str) -> float:
    """`value` as a number in (0, 1]; raises ConfigError naming `what` otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise ConfigError(f"{what}: threshold must be above 0 and at most 1, not {value!r}")
