"""The stream goes on where its reader left off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from services.api.event_stream import EventStream
from tests.unit.api.desk import Desk, decision, in_canary

pytestmark = pytest.mark.asyncio


async def first(events: AsyncIterator[bytes], count: int) -> list[tuple[str, str, str]]:
    """(id, event, data) of the first so many events."""
    found = []
    async for block in events:
        lines = dict(line.split(": ", 1) for line in block.decode().strip().split("\n"))
        if "event" in lines:
            found.append((lines.get("id", ""), lines["event"], lines["data"]))
        if len(found) == count:
            break
    return found


def stream(desk: Desk) -> EventStream:
    return EventStream(desk.parts.follower, desk.clock, is_stopping=lambda: False, max_s=60)


async def test_it_begins_after_the_event_it_is_told_and_ends_with_the_status(desk: Desk) -> None:
    in_canary(desk)
    found = await first(stream(desk).events(after=2), 3)
    assert [(identity, kind) for identity, kind, _ in found] == [
        ("4", "decision"),
        ("6", "progress"),
        ("", "status"),
    ]
    assert json.loads(found[2][2])["phase"] == "canary"


async def test_what_is_logged_later_follows_without_asking(desk: Desk) -> None:
    in_canary(desk)
    events = stream(desk).events(after=6)
    assert [kind for _, kind, _ in await first(events, 1)] == ["status"]
    desk.feed("decisions", decision(5, "abort"), offset=8)
    desk.clock.advance(2_000)
    assert [kind for _, kind, _ in await first(events, 2)] == ["decision", "status"]


async def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice(desk: Desk) -> None:
    in_canary(desk)
    seen = await first(stream(desk).events(after=-1), 3)
    rest = await first(stream(desk).events(after=int(seen[-1][0])), 2)
    identities = [identity for identity, kind, _ in (*seen, *rest) if kind != "status"]
    assert identities == ["0", "2", "4", "6"]


async def test_a_stream_ends_when_the_api_stops(desk: Desk) -> None:
    ended = EventStream(desk.parts.follower, desk.clock, is_stopping=lambda: True, max_s=60)
    assert [block async for block in ended.events(after=-1)] == [b"retry: 1000\n\n"]


async def test_an_api_that_reads_no_answers_any_more_is_not_ready(desk: Desk) -> None:
    desk.client.has_failed = True
    reply = await desk.call("GET", "/readyz", by=None)
    assert (reply.status_code, reply.text) == (
        503,
        "answers are not read any more; start this process again\n",
    )
