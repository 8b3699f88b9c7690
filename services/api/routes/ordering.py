"""Orders: each becomes a signed command, exactly like the command line's."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from services.api.core.documents import (
    AbTestOrder,
    CanaryOrder,
    CandidateOrder,
    Ingest,
    Order,
    OrderView,
    Problem,
    Published,
    RollbackOrder,
    SwapOrder,
    TrainOrder,
)
from services.api.parts import Caller, Key, Parts

REFUSED: dict[int | str, dict[str, Any]] = {
    202: {"model": OrderView, "description": "Published; nobody has said what came of it yet."},
    409: {"model": Problem, "description": "The gatekeeper refused it, or it may not be ordered now."},
}


def ordering_routes(parts: Parts) -> APIRouter:
    """Routes that change what serves or learns."""
    router = APIRouter(tags=["orders"], responses=REFUSED)
    desk = parts.orders

    def told(view: OrderView, response: Response) -> OrderView:
        if view.result != "accepted":
            response.status_code = 202
        return view

    @router.post("/rollback")
    async def rollback(order: RollbackOrder, caller: Caller, key: Key, response: Response) -> OrderView:
        """Restore an earlier release in one write: adapters, indexes and router rules together."""
        view = await desk.give(caller, "rollback", order.reason, key=key, release=order.release)
        return told(view, response)

    @router.post("/swap")
    async def swap(order: SwapOrder, caller: Caller, key: Key, response: Response) -> OrderView:
        """Make the shadow active. Without cleared gates this is 409, unless two approvers force it."""
        view = await desk.swap(caller, order.reason, release=order.release, force=order.force, key=key)
        return told(view, response)

    @router.post("/approve")
    async def approve(order: CandidateOrder, caller: Caller, key: Key, response: Response) -> OrderView:
        """Let the candidate be promoted once every gate has cleared.

        Where another approver has forced it (`waiting.forced` of `/status`), this agrees to that: it is promoted at
        once, past the gates.
        """
        view = await desk.give(caller, "approve", order.reason, key=key, release=order.release)
        return told(view, response)

    @router.post("/canary")
    async def canary(order: CanaryOrder, caller: Caller, key: Key, response: Response) -> OrderView:
        """Grow the canary to this share of subjects; a ramp only adds."""
        parameters = {"basis_points": order.basis_points}
        view = await desk.give(caller, "jump", order.reason, key=key, parameters=parameters)
        return told(view, response)

    @router.post("/ab")
    async def start_ab_test(order: AbTestOrder, caller: Caller, key: Key, response: Response) -> OrderView:
        """Let a release that served before answer a share of subjects; it ends with a report and promotes nothing."""
        parameters = {"basis_points": order.basis_points, "units": order.units}
        view = await desk.give(
            caller, "ab_start", order.reason, key=key, release=order.release, parameters=parameters
        )
        return told(view, response)

    @router.post("/ab/stop")
    async def stop_ab_test(order: Order, caller: Caller, key: Key, response: Response) -> OrderView:
        """End the running A/B test: the active release answers everybody, and what was seen is reported."""
        return told(await desk.give(caller, "ab_stop", order.reason, key=key), response)

    @router.post("/abort")
    async def abort(order: CandidateOrder, caller: Caller, key: Key, response: Response) -> OrderView:
        """End the running examination or canary; the active release stays."""
        view = await desk.give(caller, "abort", order.reason, key=key, release=order.release)
        return told(view, response)

    @router.post("/pause")
    async def pause(order: Order, caller: Caller, key: Key, response: Response) -> OrderView:
        """Stop staging and promoting; serving, rollback triggers and orders go on."""
        return told(await desk.give(caller, "pause", order.reason, key=key), response)

    @router.post("/resume")
    async def resume(order: Order, caller: Caller, key: Key, response: Response) -> OrderView:
        """Undo `pause`."""
        return told(await desk.give(caller, "resume", order.reason, key=key), response)

    @router.post("/train", status_code=202)
    async def train(order: TrainOrder, caller: Caller, key: Key) -> OrderView:
        """Ask the trainer to train now on what it has, whatever its schedule says."""
        parameters = {"domain": order.domain} if order.domain else {}
        return await desk.give(caller, "train", order.reason, key=key, parameters=parameters)

    @router.post(
        "/ingest",
        status_code=202,
        responses={202: {"model": Published, "description": "Kafka has taken them."}},
    )
    async def ingest(documents: Ingest, key: Key) -> Published:
        """Put documents into the indexes of the next release, or take them out; repeating it changes nothing."""
        del key
        return Published(published=await parts.questions.ingest(documents.documents))

    return router
