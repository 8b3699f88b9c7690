"""Cuts long texts into passages at sentence ends."""

from __future__ import annotations

import re

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def split_passages(text: str, *, max_words: int = 160) -> list[str]:
    """Passages of at most `max_words` words, in order, each of whole sentences where a sentence is no longer.

    Nothing but white space between passages is lost; a text that fits comes back as it is.
    """
    if len(text.split()) <= max_words:
        return [text.strip()] if text.strip() else []
    passages: list[list[str]] = [[]]
    for sentence in _SENTENCE_END.split(text):
        words = sentence.split()
        for start in range(0, len(words), max_words):
            piece = words[start : start + max_words]
            if passages[-1] and len(passages[-1]) + len(piece) > max_words:
                passages.append([])
            passages[-1].extend(piece)
    return [" ".join(words) for words in passages if words]
