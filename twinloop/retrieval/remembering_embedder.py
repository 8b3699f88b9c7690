"""An embedder that remembers the vectors of recent texts: what users ask, they ask again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from twinloop.retrieval.embedder import Embedder, Vectors


class RememberingEmbedder:
    """The same vectors as `inner`, bit for bit: a text's row depends on no other text, so it can be kept.

    Holds the last `max_texts` texts in memory and nowhere else; safe to call from several threads.
    """

    def __init__(self, inner: Embedder, *, max_texts: int) -> None:
        self._inner = inner
        self._row = lru_cache(maxsize=max_texts)(self._embed_one)

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def digest(self) -> str:
        return self._inner.digest

    @property
    def dim(self) -> int:
        return self._inner.dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim]."""
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = self._row(text)
        return rows

    def _embed_one(self, text: str) -> Vectors:
        row: Vectors = self._inner.embed([text])[0]
        row.setflags(write=False)
        return row
