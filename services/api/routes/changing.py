"""Changes of router rules and prompt: proposed by one person, approved by another."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from services.api.core.change_documents import ChangeProposal, ChangesView, ChangeView, change_view
from services.api.core.documents import Order, Problem
from services.api.parts import Caller, Key, Parts
from services.api.problems import ProblemRaised
from twinloop.changes.change_log import KnownChange

Name = Annotated[
    str,
    Path(
        description="The change's id.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$",
        examples=["pr-3f2a91c07b5e"],
    ),
]
UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such change."}
}
PENDING: dict[int | str, dict[str, Any]] = {
    202: {"model": ChangeView, "description": "Published; the trainer has not said anything yet."},
    409: {"model": Problem, "description": "The trainer refused it, as things are."},
}


def changing_routes(parts: Parts) -> APIRouter:
    """Routes about proposed changes."""
    router = APIRouter(tags=["changes"])
    follower, desk = parts.follower, parts.changes

    def told(known: KnownChange, response: Response, *, is_pending: bool) -> ChangeView:
        if is_pending:
            response.status_code = 202
        return change_view(known)

    @router.get("/pr")
    async def changes(limit: Annotated[int, Query(ge=1, le=500, examples=[50])] = 50) -> ChangesView:
        """Proposed changes and how far each has come, newest first."""
        with follower.model() as model:
            found = model.changes.newest_first()
        return ChangesView(changes=tuple(change_view(each) for each in found[:limit]), total=len(found))

    @router.get("/pr/{change}", responses=UNKNOWN)
    async def one_change(change: Name) -> ChangeView:
        """One change: its patch, what it would move, who said what, what became of it."""
        with follower.model() as model:
            known = model.changes.get(change)
        if known is None:
            raise ProblemRaised(404, f"there is no change {change}; GET /pr lists those there are")
        return change_view(known)

    @router.post("/pr", responses=PENDING)
    async def propose(wanted: ChangeProposal, caller: Caller, key: Key, response: Response) -> ChangeView:
        """Propose a change. It is replayed over recorded queries and waits for another person."""
        known = await desk.propose(caller, wanted, key=key)
        return told(known, response, is_pending=known.status is None)

    @router.post("/pr/{change}/approve", responses=UNKNOWN | PENDING)
    async def approve_change(
        change: Name, order: Order, caller: Caller, key: Key, response: Response
    ) -> ChangeView:
        """Approve another person's change: it becomes a release, which is examined and judged like any other."""
        known = await desk.review(caller, change, "approve", order.reason, key=key)
        return told(known, response, is_pending=_waits(known))

    @router.post("/pr/{change}/reject", responses=UNKNOWN | PENDING)
    async def reject_change(
        change: Name, order: Order, caller: Caller, key: Key, response: Response
    ) -> ChangeView:
        """Reject a change, or withdraw one's own, while nothing is composed of it yet."""
        known = await desk.review(caller, change, "reject", order.reason, key=key)
        return told(known, response, is_pending=_waits(known))

    return router


def _waits(known: KnownChange) -> bool:
    return known.status is None or known.status.stage == "open"
