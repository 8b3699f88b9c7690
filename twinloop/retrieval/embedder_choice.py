"""The choice of an embedder by its specification.

Apart from the protocol, because a transformer embedder brings torch: whoever only names the protocol needs none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinloop.errors import ConfigError
from twinloop.retrieval.embedder import Embedder


def build_embedder(spec: Mapping[str, object]) -> Embedder:
    """The embedder that `spec` describes; raises ConfigError for an unknown kind or key.

    `{"kind": "hashing", "dim": 1024}`, `{"kind": "minilm"}`, or `{"kind": "huggingface", "model": name or
    folder, "revision": commit, "max_tokens": 256}` (a name needs its revision, a folder does not).
    A key that is null counts as absent: a later settings file takes back what an earlier one set.
    """
    options: dict[str, Any] = {key: value for key, value in spec.items() if value is not None}
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
