"""In whose name a rating counts."""

from __future__ import annotations

import pytest

from tests.unit.api.desk import Desk

pytestmark = pytest.mark.asyncio

RATED = {"query_id": "q-1", "receipt": "a.b.c", "question": "why?", "rating": "up"}


async def test_a_named_rater_counts_within_the_name_of_the_token_s_holder(desk: Desk) -> None:
    reply = await desk.call("POST", "/v1/feedback", by="vera", json={**RATED, "rater": "olga"})
    assert reply.status_code == 202
    assert [given.rater for given in desk.client.given] == ["vera:olga"]


async def test_who_names_no_rater_rates_in_the_holder_s_own_name(desk: Desk) -> None:
    await desk.call("POST", "/v1/feedback", by="vera", json=RATED)
    assert [given.rater for given in desk.client.given] == ["vera"]
