"""Questions and ratings: this project's own routes and those OpenAI's clients know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from schemas.answers import Answer
from schemas.event import Identifier
from schemas.feedback import FeedbackStatus
from services.api.core.chat import (
    ChatRequest,
    Given,
    ModelCard,
    ModelList,
    RatedAnswer,
    chunks,
    completion,
    model_names,
)
from services.api.core.documents import Problem, Question
from services.api.core.examples import ANSWER, FEEDBACK_STATUS
from services.api.event_stream import data_line
from services.api.parts import Caller, Key, Parts
from services.api.problems import ProblemRaised
from services.api.question_desk import refuse_error

FAILED: dict[int | str, dict[str, Any]] = {
    429: {"model": Problem, "description": "Too many questions wait, or this one was shed."},
    502: {"model": Problem, "description": "The model gave no usable answer."},
    503: {"model": Problem, "description": "Nothing can answer now."},
    504: {"model": Problem, "description": "The deadline passed."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such thing."}
}
CHUNKS = (
    'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"Quito"}}]}\n\ndata: [DONE]\n'
)
COMPLETION = {
    "id": "chatcmpl-q-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "twinloop",
    "system_fingerprint": "blue-c40ffd4b1da7",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Quito [law-9743]"}, "finish_reason": "stop"}
    ],
    "twinloop": {"query_id": "q-1", "slot": "blue", "epoch": 4, "receipt": "eyJ..."},
}


def asking_routes(parts: Parts) -> APIRouter:
    """Routes of applications and collectors."""
    router = APIRouter()
    names = model_names(parts.section.model)
    desk = parts.questions

    @router.post("/answer", tags=["questions"], responses={**FAILED, **_shown(ANSWER)})
    async def answer(question: Question, key: Key) -> Answer:
        """Publish a question and wait for its answer, with the release and digests that produced it."""
        found = await desk.ask(
            question.question,
            key=key,
            subject=question.subject,
            domain=question.domain,
            deadline_ms=question.deadline_ms,
            canary_opt_out=question.canary_opt_out,
        )
        refuse_error(found)
        return found

    def card(name: str) -> ModelCard:
        with parts.follower.model() as model:
            state = model.state
        return ModelCard(id=name, created=state.changed_at // 1000 if state else 0)

    @router.get("/v1/models", tags=["OpenAI-compatible"])
    async def models() -> ModelList:
        """The twins as one model, and one name a domain that fixes it."""
        return ModelList(data=tuple(card(name) for name in names))

    @router.get("/v1/models/{model}", tags=["OpenAI-compatible"], responses=NOT_FOUND)
    async def model(model: Annotated[str, Path(examples=["twinloop-law"])]) -> ModelCard:
        """One model by name."""
        _refuse_unknown(model, names)
        return card(model)

    @router.post(
        "/v1/chat/completions",
        tags=["OpenAI-compatible"],
        responses={
            **FAILED,
            **NOT_FOUND,
            200: {
                "description": "A completion, or with `stream` its chunks. `twinloop` says what produced it.",
                "content": {
                    "application/json": {"schema": {"type": "object"}, "example": COMPLETION},
                    "text/event-stream": {"schema": {"type": "string"}, "example": CHUNKS},
                },
            },
        },
        response_model=None,
    )
    async def chat(request: ChatRequest, key: Key) -> Response:
        """Ask as OpenAI's clients do. A stream sends the committed answer in chunks: nothing is shown that may fall."""
        _refuse_unknown(request.model, names)
        found = await desk.ask(
            request.question, key=key, subject=request.subject, domain=names[request.model]
        )
        refuse_error(found)
        if not request.stream:
            return Response(
                orjson.dumps(completion(found, model=request.model)), media_type="application/json"
            )
        return StreamingResponse(_streamed(found, request.model), media_type="text/event-stream")

    @router.post("/v1/feedback", tags=["OpenAI-compatible"], status_code=202)
    async def feedback(rated: RatedAnswer, caller: Caller, key: Key) -> Given:
        """Rate or correct an answer; quote the `query_id` and `receipt` that came with it."""
        given = await desk.rate(caller, rated, key=key)
        return Given(id=given.id, query_id=given.query_id, given_at=given.given_at)

    @router.get(
        "/v1/feedback/{feedback_id}",
        tags=["OpenAI-compatible"],
        responses={**NOT_FOUND, **_shown(FEEDBACK_STATUS)},
    )
    async def feedback_status(feedback_id: Annotated[Identifier, Path(examples=["f-1"])]) -> FeedbackStatus:
        """What became of one feedback: accepted, rejected, quarantined, counted or trained."""
        with parts.follower.model() as model:
            found = model.feedback.get(feedback_id)
        if found is None:
            raise ProblemRaised(404, f"feedback {feedback_id} has no status yet", code="no-status")
        return found

    return router


def _shown(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """An example of a contract whose published schema has none in it."""
    return {200: {"content": {"application/json": {"example": example}}}}


def _refuse_unknown(name: str, names: dict[str, Any]) -> None:
    if name not in names:
        raise ProblemRaised(
            404, f"there is no model {name[:80]!r}; there are {', '.join(names)}", code="model_not_found"
        )


async def _streamed(answer: Answer, model: str) -> AsyncIterator[bytes]:
    for chunk in chunks(answer, model=model):
        yield data_line(chunk)
    yield b"data: [DONE]\n\n"
