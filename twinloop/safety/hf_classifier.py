"""Any Hugging Face sequence classifier behind the classifier protocol; torch is imported when one is opened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from twinloop.errors import ConfigError
from twinloop.safety.classifier import Score, Span, checked_threshold

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK_BYTES = 1 << 20


class HfClassifier:
    """Score = probability of the positive labels (their sum, or the highest of a multi-label model).

    Texts longer than the model's window are judged piece by piece; the worst piece counts and is the span.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        version: str,
        positive: Collection[int],
        threshold: float,
        max_tokens: int,
    ) -> None:
        self.name = name
        self.version = version
        self._model = model
        self._tokenizer = tokenizer
        self._positive = sorted(positive)
        self._threshold = threshold
        self._max_tokens = max_tokens

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score a text, in order."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Score:
        import torch

        if not text.strip():
            return Score(0.0, False)
        pieces = self._tokenizer(
            text,
            truncation=True,
            max_length=self._max_tokens,
            stride=min(32, self._max_tokens // 4),
            padding=True,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = pieces.pop("offset_mapping").tolist()
        pieces.pop("overflow_to_sample_mapping", None)
        with torch.inference_mode():
            logits = self._model(**pieces).logits
        if self._model.config.problem_type == "multi_label_classification":
            scores = torch.sigmoid(logits)[:, self._positive].amax(dim=1).tolist()
        else:
            scores = torch.softmax(logits, dim=1)[:, self._positive].sum(dim=1).clamp(0, 1).tolist()
        spans = tuple(
            Span(min(start for start, end in piece if end), max(end for _, end in piece), self.name)
            for piece, score in zip(offsets, scores, strict=True)
            if score >= self._threshold and any(end for _, end in piece)
        )
        return Score(max(scores), max(scores) >= self._threshold, spans)


def open_hf_classifier(
    *,
    model: str,
    positive_labels: Sequence[str],
    revision: str | None = None,
    threshold: float = 0.5,
    max_tokens: int = 512,
) -> HfClassifier:
    """A classifier by local folder, or by hub name with the 40-digit commit it is pinned to.

    Weights are read as safetensors only and no code of the model is run. Raises ConfigError for a name without a
    pinned revision, for labels the model does not have and where the model cannot be had.
    """
    chosen = checked_threshold(threshold, what=f"classifier {model!r}")
    folder = Path(model) if Path(model).is_dir() else _downloaded(model, revision)
    name = folder.name if Path(model).is_dir() else model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        network = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, **options
        ).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"classifier {model!r}: {folder} cannot be loaded: {error}") from error
    known = {str(label): int(number) for number, label in network.config.id2label.items()}
    unknown = [label for label in positive_labels if label not in known]
    if unknown or not positive_labels:
        raise ConfigError(
            f"classifier {model!r}: positive_labels {unknown or '[]'} are not among {sorted(known)}"
        )
    return HfClassifier(
        network,
        tokenizer,
        name=name,
        version=f"{_folder_digest(folder)[:12]}-{'+'.join(sorted(positive_labels))}-t{chosen:g}",
        positive=[known[label] for label in positive_labels],
        threshold=chosen,
        max_tokens=max_tokens,
    )


def _downloaded(model: str, revision: str | None) -> Path:
    if revision is None or _COMMIT.fullmatch(revision) is None:
        raise ConfigError(
            f"classifier {model!r}: pin `revision` to a commit (40 hex digits), or give a local folder"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.safetensors", "*.json", "*.txt", "*.model"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(f"classifier {model!r} at {revision} cannot be had: {error}") from error


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".safetensors", ".json", ".txt", ".model"}:
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            with path.open("rb") as stream:
                while piece := stream.read(_CHUNK_BYTES):
                    digest.update(piece)
    return digest.hexdigest()
