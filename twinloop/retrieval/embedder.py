"""What turns text into vectors, and the choice of one by its specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twinloop.errors import ConfigError

Vectors = NDArray[np.float32]
"""Rows of unit length: float32 [n, dim]."""


class Embedder(Protocol):
    """Texts in, unit vectors out; equal digests promise equal vectors for equal texts."""

    @property
    def name(self) -> str:
        """Short name for people."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything the vectors depend on: algorithm, parameters, weights."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], rows of L2 norm 1 (a text without any feature gives a zero row).

        A text's row does not depend on the other texts of the call.
        """


def build_embedder(spec: Mapping[str, object]) -> Embedder:
    """The embedder that `spec` describes; raises ConfigError for an unknown kind or key.

    `{"kind": "hashing", "dim": 1024}`, `{"kind": "minilm"}`, or `{"kind": "huggingface", "model": name or
    folder, "revision": commit, "max_tokens": 256}` (a name needs its revision, a folder does not).
    """
    options: dict[str, Any] = dict(spec)
    kind = options.pop("kind", None)
    try:
        if kind == "hashing":
            from twinloop.retrieval.hashing_embedder import HashingEmbedder

            return HashingEmbedder(**options)
        if kind == "minilm":
            from twinloop.retrieval.transformer_embedder import open_minilm

            return open_minilm(**options)
        if kind == "huggingface":
            from twinloop.retrieval.transformer_embedder import open_huggingface

            return open_huggingface(**options)
    except TypeError as error:
        raise ConfigError(f"embedder {kind!r}: {error}") from error
    raise ConfigError(f"embedder kind {kind!r} is unknown: use hashing, minilm or huggingface")
