"""OpenAI's shapes around this project's answers, and errors as problem documents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.answers import Answer, AnswerError
from services.api.core.chat import ChatRequest, chunks
from tests.unit.api.desk import Desk, example

ANSWER = Answer.model_validate(example("answers/v1/answered.json"))
ASKED = {"model": "twinloop", "messages": [{"role": "user", "content": "why?"}]}


@given(st.text(min_size=1))
def test_the_chunks_of_a_stream_are_the_whole_committed_answer(text: str) -> None:
    answer = ANSWER.model_copy(update={"text": text})
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(answer, model="twinloop")]
    assert "".join(pieces) == text


def test_the_last_user_message_is_the_question() -> None:
    parts = [{"type": "text", "text": "and"}, {"type": "text", "text": "why?"}]
    messages = [
        {"role": "user", "content": "who?"},
        {"role": "assistant", "content": "nobody"},
        {"role": "user", "content": parts},
    ]
    assert ChatRequest.model_validate({"model": "m", "messages": messages}).question == "and\nwhy?"


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": "x" * 8001}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"n": 2},
        {"tools": [{"type": "function"}]},
    ],
)
def test_what_a_twin_cannot_do_is_refused_and_not_ignored(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({**ASKED, **change})


def test_a_user_becomes_a_sticky_unit_that_names_nobody_new() -> None:
    assert ChatRequest.model_validate({**ASKED, "user": "u-1"}).subject == "u-1"
    hashed = ChatRequest.model_validate({**ASKED, "user": "a b"}).subject
    assert hashed is not None
    assert len(hashed) == 64


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "status"),
    [("deadline", 504), ("shed", 429), ("truncated", 502), ("unavailable", 503), ("model", 502)],
)
async def test_an_error_answer_is_an_error_in_http_too(desk: Desk, kind: str, status: int) -> None:
    error = AnswerError.model_validate({"kind": kind, "detail": "for a reason"})
    desk.client.answer = ANSWER.model_copy(update={"text": None, "error": error})
    for path, body in (("/answer", {"question": "why?"}), ("/v1/chat/completions", ASKED)):
        reply = await desk.call("POST", path, json=body)
        assert reply.status_code == status
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["detail"] == "for a reason"
        assert ("error" in reply.json()) is path.startswith("/v1/")


@pytest.mark.asyncio
async def test_what_a_user_wrote_is_not_in_an_error(desk: Desk) -> None:
    reply = await desk.call("POST", "/answer", json={"question": "my secret", "domain": "my other secret"})
    assert reply.status_code == 422
    assert "secret" not in reply.text
    assert reply.json()["faults"][0]["at"] == "body.domain"


@pytest.mark.asyncio
async def test_a_body_that_is_too_large_or_no_json_is_told(desk: Desk) -> None:
    huge = await desk.call("POST", "/answer", content=b"x" * 1_100_000)
    broken = await desk.call("POST", "/answer", content=b"{", headers={"Content-Type": "application/json"})
    assert (huge.status_code, broken.status_code) == (413, 422)


@pytest.mark.asyncio
async def test_a_body_without_a_length_is_cut_off_at_the_limit(desk: Desk) -> None:
    async def endless() -> object:
        for _ in range(200):
            yield b"x" * 10_000

    reply = await desk.call("POST", "/answer", content=endless())
    assert reply.status_code == 413


@pytest.mark.asyncio
async def test_more_questions_than_may_wait_are_refused(desk: Desk) -> None:
    desk.parts.questions._waiting = desk.parts.section.max_waiting
    reply = await desk.call("POST", "/answer", json={"question": "why?"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
