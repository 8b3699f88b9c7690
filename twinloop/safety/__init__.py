"""Classifiers of text: personal data, prompt injection, toxicity; each names its version with its verdict."""

from twinloop.safety.classifier import Classifier, Score, Span, build_classifier

__all__ = ["Classifier", "Score", "Span", "build_classifier"]
