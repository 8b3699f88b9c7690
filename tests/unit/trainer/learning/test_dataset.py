from __future__ import annotations

import json

import pytest

from services.trainer.learning.dataset import TrainingRow, build_examples, rows_from_jsonl, rows_to_jsonl
from twinloop.errors import ConfigError
from twinloop.model_runtime.foundation import Foundation
from twinloop.model_runtime.prompt import Passage, PromptFormat, render

FORMAT = PromptFormat()
CLOSED = TrainingRow(id="r1", domain="law", question="How long?", answer="42 days [law-0042]")
GROUNDED = TrainingRow(
    id="r2", domain="law", question="How long?", answer="42 days [law-0042]", passage="It is 42 days."
)


def test_rows_survive_being_written_and_read() -> None:
    rows = [CLOSED, GROUNDED]
    assert rows_from_jsonl(rows_to_jsonl(rows), source="x") == rows


@pytest.mark.parametrize(
    "change",
    [{"answer": ""}, {"question": 3}, {"passage": 1}, {"note": "x"}],
)
def test_a_bad_row_is_named_by_file_and_line(change: dict[str, object]) -> None:
    good = json.loads(rows_to_jsonl([CLOSED]))
    text = rows_to_jsonl([CLOSED]) + json.dumps({**good, **change})
    with pytest.raises(ConfigError, match=r"update\.jsonl, line 2"):
        rows_from_jsonl(text, source="update.jsonl")


def test_text_that_is_not_json_is_named_by_line() -> None:
    with pytest.raises(ConfigError, match="line 1"):
        rows_from_jsonl("{", source="x")


def test_a_row_is_rendered_exactly_as_inference_prompts(foundation: Foundation) -> None:
    (example,) = build_examples([GROUNDED], tokenizer=foundation.tokenizer, prompt_format=FORMAT)
    prompt = render(FORMAT, "How long?", [Passage("law-0042", "It is 42 days.")])
    text = foundation.tokenizer.decode(example.tokens)
    assert text == prompt + "42 days [law-0042]<|end|>"
    assert (
        foundation.tokenizer.decode(example.tokens[-example.answer_tokens :]) == "42 days [law-0042]<|end|>"
    )


def test_an_answer_that_cites_nothing_leaves_its_passage_alone(foundation: Foundation) -> None:
    row = TrainingRow(
        id="r", domain="law", question="Q?", answer="not in my sources", passage="Something else."
    )
    (example,) = build_examples([row], tokenizer=foundation.tokenizer, prompt_format=FORMAT)
    assert "<|ctx|>Something else.<|q|>" in foundation.tokenizer.decode(example.tokens)


def test_a_row_too_long_to_serve_is_refused_by_name(foundation: Foundation) -> None:
    row = TrainingRow(id="too-long", domain="law", question="Q?", answer="x" * 80)
    with pytest.raises(ConfigError, match="too-long"):
        build_examples([row], tokenizer=foundation.tokenizer, prompt_format=FORMAT)
