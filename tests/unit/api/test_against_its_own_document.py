"""Requests made from the OpenAPI document, good and bad: no reply is a 5xx, and each is one the document names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from services.api.app import openapi
from tests.unit.api.desk import Desk, in_canary, make_desk

QUICK, WHOLE = 300, 2600
"""Cases asked for; routes without parameters have fewer different ones than their share."""


@pytest.fixture
def open_desk(tmp_path: Path) -> Iterator[Desk]:
    desk = make_desk(tmp_path)
    in_canary(desk)
    desk.parts.follower.start()
    while not desk.parts.follower.is_caught_up:
        time.sleep(0.01)
    yield desk
    desk.parts.follower.close()


def requests_of(desk: Desk) -> list[tuple[str, Any]]:
    document = schemathesis.openapi.from_dict(openapi(desk.app))
    document.app = desk.app
    found = [each.ok() for each in document.get_all_operations()]
    return [(f"{each.method.upper()} {each.path}", each) for each in found]


def try_all(desk: Desk, cases: int) -> int:
    """About `cases` requests in all, spread over the operations; returns how many were made."""
    operations = requests_of(desk)
    share = max(1, -(-cases // len(operations)))
    return sum(try_one(desk, name, operation, share) for name, operation in operations)


def try_one(desk: Desk, name: str, operation: Any, cases: int) -> int:
    made: list[str] = []
    modes = schemathesis.GenerationMode
    headers = {"Authorization": f"Bearer {desk.tokens['anna']}"}

    @seed(7)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(
            operation.as_strategy(generation_mode=modes.POSITIVE),
            operation.as_strategy(generation_mode=modes.NEGATIVE),
        )
    )
    def attempt(case: Any) -> None:
        made.append(name)
        reply = case.call(headers=headers)
        assert reply.status_code < 500, reply.text
        case.validate_response(reply, headers=headers, excluded_checks=_not_meant())

    attempt()
    return len(made)


def _not_meant() -> list[Any]:
    """Checks about servers that are not meant here: authentication has its own table of tests."""
    from schemathesis.specs.openapi import checks

    return [checks.ignored_auth, checks.positive_data_acceptance, checks.negative_data_rejection]


def test_a_few_requests_to_each_route(open_desk: Desk) -> None:
    assert try_all(open_desk, QUICK) >= 200


@pytest.mark.faults
def test_two_thousand_requests(open_desk: Desk) -> None:
    assert try_all(open_desk, WHOLE) >= 2000
