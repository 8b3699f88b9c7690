"""The official OpenAI client, unchanged, against a served API."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import openai
import pytest

from schemas.feedback import Feedback
from tests.integration.api.answerer import SHED, Answerer
from tests.integration.api.served import Served
from tests.integration.gatekeeper.world import World
from twinloop.codec import decode


@pytest.fixture
def answerer(world: World) -> Iterator[Answerer]:
    found = Answerer(world.kafka, world.topics)
    yield found
    found.close()


@pytest.fixture
def client(
    serve: Callable[..., Served], tokens: dict[str, str], answerer: Answerer
) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        api_key=tokens["vera"], base_url=f"{serve().address}/v1", max_retries=0, timeout=20
    ) as found:
        yield found


def test_it_gets_an_answer_a_stream_the_models_and_errors_it_understands(
    client: openai.OpenAI, answerer: Answerer, world: World
) -> None:
    messages = [{"role": "user", "content": "why?"}]
    answer = client.chat.completions.create(model="twinloop", messages=messages)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "you asked:  why?\n"
    made_by = answer.model_extra["twinloop"]  # type: ignore[index]
    assert {"release", "slot", "epoch", "adapter", "index", "rules", "receipt"} <= made_by.keys()
    assert answer.id == f"chatcmpl-{made_by['query_id']}"

    chunks = list(
        client.chat.completions.create(
            model="twinloop-med",
            messages=[{"role": "system", "content": "be brief"}, *messages],  # type: ignore[list-item]
            stream=True,
            temperature=0.2,
            user="someone with blanks",
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "you asked:  why?\n"
    assert len(chunks) > 3
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert answerer.asked[-1].domain == "med"
    assert answerer.asked[-1].subject is not None

    assert [model.id for model in client.models.list()][:2] == ["twinloop", "twinloop-law"]
    assert client.models.retrieve("twinloop").owned_by == "twinloop"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'"):
        client.chat.completions.create(model="gpt-4", messages=messages)  # type: ignore[arg-type]
    with pytest.raises(openai.RateLimitError, match="too much at once"):
        client.chat.completions.create(model="twinloop", messages=[{"role": "user", "content": SHED}])
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="twinloop", messages=messages, n=2)  # type: ignore[arg-type]
    with pytest.raises(openai.AuthenticationError, match="bearer token"):
        client.with_options(api_key="sk-none").models.list()

    rated = {
        "query_id": made_by["query_id"],
        "receipt": made_by["receipt"],
        "question": "why?",
        "rating": "up",
    }
    client.post("/feedback", body=rated, cast_to=object)
    (given,) = [decode(record, Feedback) for record in world.read("feedback")]
    assert (given.rater, given.rating, given.query_id) == ("vera", "up", made_by["query_id"])
