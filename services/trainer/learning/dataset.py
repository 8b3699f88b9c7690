"""Training rows and their rendering to tokens, in exactly the format that inference prompts with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from twinloop.errors import ConfigError
from twinloop.model_runtime.prompt import ChatTemplate, Passage, PromptFormat, parse_answer, render


@dataclass(frozen=True)
class TrainingRow:
    """One question and the answer to learn for it."""

    id: str
    domain: str
    question: str
    answer: str
    """Target text including its citation, as the model shall write it."""
    passage: str | None = None
    """With a passage the row is answered from it, without one closed book."""
    update: str | None = None
    """Of a row that is rehearsed: the release that taught it."""


@dataclass(frozen=True)
class Example:
    """A rendered row: token ids, of which the last `answer_tokens` are the target and carry the loss."""

    row_id: str
    tokens: tuple[int, ...]
    answer_tokens: int


def rows_from_jsonl(text: str, *, source: str) -> list[TrainingRow]:
    """Rows of a JSONL document; raises ConfigError naming `source`, line and field."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            rows.append(_row(line, where=f"{source}, line {number}"))
    return rows


def rows_to_jsonl(rows: Iterable[TrainingRow]) -> str:
    """The inverse of `rows_from_jsonl`, one canonical JSON object a line."""
    return "".join(json.dumps(asdict(row), sort_keys=True, ensure_ascii=False) + "\n" for row in rows)


def build_examples(
    rows: Sequence[TrainingRow],
    *,
    tokenizer: Any,
    prompt_format: PromptFormat,
    chat: ChatTemplate | None = None,
) -> list[Example]:
    """Render rows to tokens, the end of the answer included; raises ConfigError for one that is too long to serve."""
    end = _end_ids(tokenizer, prompt_format)
    examples = []
    for row in rows:
        prompt = render(prompt_format, row.question, passages_of(row, prompt_format), chat=chat)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer_ids = tokenizer(row.answer, add_special_tokens=False)["input_ids"] + end
        if (
            len(prompt_ids) > prompt_format.max_prompt_tokens
            or len(answer_ids) > prompt_format.max_new_tokens
        ):
            raise ConfigError(
                f"row {row.id}: {len(prompt_ids)} prompt and {len(answer_ids)} answer tokens; the prompt format allows "
                f"{prompt_format.max_prompt_tokens} and {prompt_format.max_new_tokens}. Leave the row out"
            )
        examples.append(Example(row.id, tuple(prompt_ids + answer_ids), len(answer_ids)))
    return examples


def passages_of(row: TrainingRow, prompt_format: PromptFormat) -> list[Passage]:
    """The row's passage under the id its answer cites; empty for a closed-book row."""
    if row.passage is None:
        return []
    cited = parse_answer(prompt_format, row.answer).citations
    # An answer that cites nothing (an abstention) leaves the passage as it stands: the mark must not be invented.
    return [Passage(cited[0] if cited else "", row.passage)]


def _row(line: str, *, where: str) -> TrainingRow:
    try:
        values = json.loads(line)
    except ValueError as cause:
        raise ConfigError(f"{where}: not JSON: {cause}") from cause
    if not isinstance(values, dict) or not set(values) <= set(TrainingRow.__dataclass_fields__):
        raise ConfigError(
            f"{where}: a row has the fields {sorted(TrainingRow.__dataclass_fields__)} and no other"
        )
    for name in ("id", "domain", "question", "answer"):
        if not isinstance(values.get(name), str) or not values[name].strip():
            raise ConfigError(f"{where}: {name} must be text that is not empty")
    for name in ("passage", "update"):
        if not isinstance(values.get(name), str | None):
            raise ConfigError(f"{where}: {name} must be text or null")
    return TrainingRow(**values)


def _end_ids(tokenizer: Any, prompt_format: PromptFormat) -> list[int]:
    """What ends an answer: the format's end tag where the tokenizer has it as one token, else the tokenizer's own end.

    A tag spelled in several tokens would never stop generation, which looks for one.
    """
    if prompt_format.kind == "tagged":
        ids: list[int] = tokenizer(prompt_format.end_tag, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            return ids
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the foundation's tokenizer has no end-of-sequence token, so that no answer would ever end; set eos_token "
            "in its tokenizer_config.json"
        )
    return [int(tokenizer.eos_token_id)]
