"""What turns text into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
