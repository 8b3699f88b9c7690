"""`twinloop up` with its API on the embedded profile, asked by OpenAI's client: real router, workers and gatekeeper."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import openai
import pytest

from twinloop.api_tokens import TOKENS_FILE, add_token
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan

QUESTION = "What is the enforcing court of statute Markemfan?"


@pytest.mark.faults
def test_an_existing_client_gets_an_answer_a_stream_and_what_became_of_its_rating(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    plan = Plan(home=home, documents=Path("configs/starter/documents.jsonl"), api_port=0)
    with Installation(plan, print) as installation:
        assert installation.api_address is not None
        token = add_token(home.keys / TOKENS_FILE, "app", "viewer", key_id=None, now_ms=1)
        messages = [{"role": "user", "content": QUESTION}]
        with openai.OpenAI(api_key=token, base_url=f"{installation.api_address}v1") as client:
            answer = client.chat.completions.create(model="twinloop", messages=messages)  # type: ignore[arg-type]
            assert answer.choices[0].message.content == "Quito [law-9743]"
            streamed = client.chat.completions.create(model="twinloop", messages=messages, stream=True)  # type: ignore[call-overload]
            assert "".join(c.choices[0].delta.content or "" for c in streamed) == "Quito [law-9743]"
            made_by = answer.model_extra["twinloop"]  # type: ignore[index]
            assert made_by["release"] == installation.bootstrap_release
            rated = {
                "query_id": made_by["query_id"],
                "receipt": made_by["receipt"],
                "question": QUESTION,
                "rating": "up",
            }
            given = client.post("/feedback", body=rated, cast_to=httpx.Response).json()
            status = told(client, given["id"])
            assert status["status"] in ("accepted", "counted"), status


def told(client: openai.OpenAI, feedback_id: str) -> dict[str, str]:
    """What became of it; the trainer takes a moment."""
    for _ in range(100):
        try:
            found: dict[str, str] = client.get(f"/feedback/{feedback_id}", cast_to=httpx.Response).json()
            return found
        except openai.NotFoundError:
            time.sleep(0.2)
    raise AssertionError("no status within 20 s")
