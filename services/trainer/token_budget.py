"""Whether a row fits the prompt format: one row too long would make the whole training job unusable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.releases import Release
from twinloop.model_runtime.prompt import Passage, PromptFormat, render
from twinloop.registry.blobs import BlobStore
from twinloop.registry.manifests import read_manifest

_TOKENIZER = "tokenizer.json"
_TEMPLATE_TOKENS = 64
"""Room for what a chat template adds around its messages."""


class TokenBudget:
    """Counts tokens as serving does."""

    def __init__(self, tokenizer: Any, prompt_format: PromptFormat) -> None:
        self._tokenizer = tokenizer
        self._format = prompt_format

    def flaw(self, question: str, answer: str, passage: str | None) -> str | None:
        """`answer_too_long`, `question_too_long` or None."""
        if self._count(answer) + 1 > self._format.max_new_tokens:
            return "answer_too_long"
        # The longest id a citation can have stands in for the row's own.
        passages = [] if passage is None else [Passage("x" * 24, passage)]
        prompt = render(self._format, question, passages, chat=_joined)
        room = 0 if self._format.kind == "tagged" else _TEMPLATE_TOKENS
        return "question_too_long" if self._count(prompt) + room > self._format.max_prompt_tokens else None

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _joined(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


def open_token_budget(store: BlobStore, release: Release, *, source: str) -> TokenBudget | None:
    """The budget of a release's foundation and prompt; None where its tokenizer is neither in store nor folder."""
    import tokenizers

    local = Path(source) / _TOKENIZER
    if store.exists(release.foundation):
        digest = read_manifest(store, release.foundation, kind="foundation").file(_TOKENIZER).sha256
        document = store.get(digest).decode()
    elif local.is_file():
        document = local.read_text(encoding="utf-8")
    else:
        return None
    prompt_format = PromptFormat.from_json(store.get(release.prompt))
    return TokenBudget(tokenizers.Tokenizer.from_str(document), prompt_format)
