"""What is: status, decisions, releases, examination, canary, review queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from services.api.core.documents import (
    AbTestView,
    CanaryView,
    HistoryView,
    QaView,
    ReleasesView,
    ReviewView,
    StatusView,
    Whoami,
)
from services.api.core.gate_series import KEPT_POINTS
from services.api.core.views import (
    ab_test_view,
    canary_view,
    history_view,
    named_releases,
    qa_view,
    release_views,
    review_view,
    status_view,
)
from services.api.event_stream import EventStream
from services.api.parts import Caller, Parts
from services.api.problems import ProblemRaised

_EVENTS = """id: 41
event: decision
data: {"epoch": 4, "kind": "canary", "line": "canary 2ed4cfc8: QA passed, 5 % of subjects: ..."}
"""


def reading_routes(parts: Parts) -> APIRouter:
    """Routes that change nothing."""
    router = APIRouter(tags=["what is"])
    follower, clock = parts.follower, parts.clock
    open_streams: set[object] = set()

    @router.get("/whoami")
    async def whoami(caller: Caller) -> Whoami:
        """Whose token this is and what it allows."""
        return Whoami(actor=caller.id, role=caller.role)

    @router.get("/status")
    async def status() -> StatusView:
        """What serves, what is being judged, who is ready, what lags, what was refused."""
        with follower.model() as model:
            return status_view(model, now_ms=clock.now_ms(), caught_up=follower.is_caught_up)

    @router.get("/qa")
    async def qa() -> QaView:
        """The running examination, and the last one that was judged, limit by limit."""
        with follower.model() as model:
            return qa_view(model)

    @router.get("/canary")
    async def canary(
        points: Annotated[
            int,
            Query(
                ge=0,
                le=KEPT_POINTS,
                description="How many of the latest points of the series.",
                examples=[120],
            ),
        ] = 120,
    ) -> CanaryView:
        """The running canary or the last one: every gate now, and over time with interval and e-value."""
        with follower.model() as model:
            return canary_view(model, points=points)

    @router.get("/ab")
    async def ab_test(
        limit: Annotated[
            int, Query(ge=0, le=100, description="How many ended tests to report.", examples=[10])
        ] = 10,
    ) -> AbTestView:
        """The running A/B test or the last one, gate by gate, and the reports of those that ended."""
        with follower.model() as model:
            return ab_test_view(model, limit=limit)

    @router.get("/history")
    async def history(
        limit: Annotated[int, Query(ge=1, le=500, description="How many at most.", examples=[50])] = 50,
        before: Annotated[
            int | None, Query(ge=1, le=2**53, description="Only those before this epoch.", examples=[4])
        ] = None,
    ) -> HistoryView:
        """Every decision with its evidence, newest first."""
        with follower.model() as model:
            return history_view(model, limit=limit, before=before)

    @router.get("/releases")
    async def releases() -> ReleasesView:
        """Releases with their lineage, their role now, and what their training measured."""
        with follower.model() as model:
            unknown = [name for name in named_releases(model) if name not in model.proposals]
        stored = await run_in_threadpool(parts.releases.read, unknown)
        with follower.model() as model:
            return ReleasesView(releases=tuple(release_views(model, stored)))

    @router.get("/review")
    async def review() -> ReviewView:
        """What waits for a person: a candidate, a forced swap, feedback kept aside."""
        with follower.model() as model:
            return review_view(model)

    @router.get(
        "/decisions",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Events `decision`, `progress` (with their offset as id) and `status`.",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}},
            }
        },
    )
    async def decisions(
        caller: Caller,
        last: Annotated[
            int, Query(ge=0, le=1000, description="How many earlier events to begin with.", examples=[20])
        ] = 20,
        last_event_id: Annotated[
            str | None,
            Header(description="Go on after this event.", pattern="^[0-9]{1,18}$", examples=["41"]),
        ] = None,
    ) -> StreamingResponse:
        """Decisions and progress as they are logged, and the status when it changes (server-sent events)."""
        if len(open_streams) >= parts.section.max_streams:
            raise ProblemRaised(429, "too many open streams", code="too-many-streams")
        after = _start(parts, last) if last_event_id is None else int(last_event_id)
        stream = EventStream(
            follower,
            clock,
            is_stopping=parts.is_stopping,
            is_allowed=lambda: parts.tokens.still_holds(caller),
            max_s=parts.stream_max_s,
        )

        async def counted() -> AsyncIterator[bytes]:
            open_streams.add(stream)
            parts.metrics.streams.set(len(open_streams))
            try:
                async for event in stream.events(after):
                    yield event
            finally:
                open_streams.discard(stream)
                parts.metrics.streams.set(len(open_streams))

        return StreamingResponse(
            counted(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return router


def _start(parts: Parts, last: int) -> int:
    """The offset after which the last so many events lie."""
    with parts.follower.model() as model:
        logged = model.since(-1)
    if last == 0:
        return logged[-1].offset if logged else -1
    return logged[-last - 1].offset if len(logged) > last else -1
