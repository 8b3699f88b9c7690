"""OpenAI's chat completions as questions and answers: shapes only.

After https://platform.openai.com/docs/api-reference/chat. A twin answers single questions: the last message of the user
is asked, what came before it is not. Sampling knobs are accepted and change nothing, because a release fixes its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.answers import Answer, ErrorKind
from schemas.event import DOMAINS, Domain, EpochMs, Identifier
from schemas.feedback import Rating
from services.api.core.documents import Taken, Told, example
from twinloop.canonical import sha256_hex

_IDENTIFIER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")
_PIECE = re.compile(r"\s*\S+")

STATUS_OF: dict[ErrorKind, int] = {
    "deadline": 504,
    "shed": 429,
    "truncated": 502,
    "empty": 502,
    "rerouted": 503,
    "revoked": 503,
    "unavailable": 503,
    "model": 502,
}
"""HTTP status of an answer that is an error."""


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatRequest(BaseModel):
    """A chat completion as OpenAI's clients ask for it; unknown fields are accepted and change nothing."""

    model_config = ConfigDict(frozen=True, extra="allow") | example(
        model="twinloop",
        messages=[{"role": "user", "content": "What is the enforcing court of statute Markemfan?"}],
    )

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    stream: bool = False
    user: Annotated[str, StringConstraints(max_length=500)] | None = None
    """The sticky unit of canary assignment."""
    n: Literal[1] | None = None
    tools: None = None
    """There are no tools."""

    @model_validator(mode="after")
    def ends_with_a_question(self) -> ChatRequest:
        if not 1 <= len(self.question) <= 8000:
            raise ValueError("the last user message must have 1 to 8000 characters")
        return self

    @property
    def question(self) -> str:
        asked = [message.text for message in self.messages if message.role == "user"]
        return asked[-1].strip() if asked else ""

    @property
    def subject(self) -> str | None:
        """The user as a sticky unit, hashed where it would be no identifier."""
        if not self.user:
            return None
        return self.user if _IDENTIFIER.match(self.user) else sha256_hex(self.user.encode())


class RatedAnswer(Taken):
    """Feedback on an answer: quote its `query_id` and `receipt`, and repeat the question."""

    model_config = example(
        query_id="q-1",
        receipt="eyJ...",
        question="What is the enforcing court of statute Markemfan?",
        rating="down",
        correction="Quito [law-9743]",
    )

    query_id: Identifier
    receipt: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    question: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    rater: Identifier | None = None
    """Who rates; the token's holder where absent."""
    rating: Rating | None = None
    correction: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None
    citation_flag: Literal["wrong", "missing"] | None = None
    retracts: Identifier | None = None

    @model_validator(mode="after")
    def says_something(self) -> RatedAnswer:
        if not (self.rating or self.correction or self.citation_flag or self.retracts):
            raise ValueError("needs at least one of rating, correction, citation_flag, retracts")
        return self


class Given(Told):
    """Feedback that Kafka has acknowledged."""

    model_config = example(id="f-1", object="feedback", query_id="q-1", given_at=1_790_000_000_000)

    id: Identifier
    """Ask for what became of it under `/v1/feedback/{id}`."""
    object: Literal["feedback"] = "feedback"
    query_id: Identifier
    given_at: EpochMs


class ModelCard(Told):
    """A model as OpenAI's clients list it."""

    model_config = example(id="twinloop", object="model", created=1_790_000_000, owned_by="twinloop")

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "twinloop"


class ModelList(Told):
    """The models there are."""

    model_config = example(
        object="list",
        data=[{"id": "twinloop", "object": "model", "created": 1_790_000_000, "owned_by": "twinloop"}],
    )

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


def model_names(base: str) -> dict[str, Domain | None]:
    """Name of each model and the domain it fixes."""
    return {base: None, **{f"{base}-{domain}": domain for domain in DOMAINS}}


def provenance(answer: Answer) -> dict[str, Any]:
    """What produced an answer, as an extension OpenAI's clients hand through."""
    document = answer.model_dump(mode="json", exclude={"text", "error", "answered_at"})
    return {name: value for name, value in document.items() if value is not None}


def completion(answer: Answer, *, model: str) -> dict[str, Any]:
    """A whole `chat.completion`; token counts are left out, because the API has no tokenizer to count with."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {**_head(answer, model, "chat.completion"), "choices": [choice], "twinloop": provenance(answer)}


def chunks(answer: Answer, *, model: str) -> Iterator[dict[str, Any]]:
    """The committed answer in pieces of one word; the first chunk carries what produced it."""
    head = _head(answer, model, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            **head,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }

    yield {**chunk({"role": "assistant", "content": ""}), "twinloop": provenance(answer)}
    text = answer.text or ""
    ended = 0
    for piece in _PIECE.finditer(text):
        ended = piece.end()
        yield chunk({"content": piece[0]})
    if ended < len(text):
        yield chunk({"content": text[ended:]})
    yield chunk({}, "stop")


def _head(answer: Answer, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.query_id}",
        "object": kind,
        "created": answer.answered_at // 1000,
        "model": model,
        "system_fingerprint": f"{answer.slot}-{(answer.release or '')[:12]}",
    }
