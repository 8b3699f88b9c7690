"""What the routes work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from prometheus_client import CollectorRegistry

from services.api.auditing import Auditor
from services.api.change_desk import ChangeDesk
from services.api.follower import Follower
from services.api.metrics import ApiMetrics
from services.api.order_desk import OrderDesk
from services.api.question_desk import QuestionDesk
from services.api.release_shelf import ReleaseShelf
from services.api.settings import ApiSection
from services.api.token_file import TokenFile
from twinloop.api_tokens import TokenEntry
from twinloop.clock import Clock


@dataclass(frozen=True)
class Parts:
    """One of everything, made by the composition root."""

    section: ApiSection
    follower: Follower
    orders: OrderDesk
    changes: ChangeDesk
    questions: QuestionDesk
    releases: ReleaseShelf
    tokens: TokenFile
    auditor: Auditor
    metrics: ApiMetrics
    registry: CollectorRegistry
    clock: Clock
    is_stopping: Callable[[], bool]
    stream_max_s: float = 3600.0
    """After this an event stream ends and its reader comes back with `Last-Event-ID`."""

    def is_ready(self) -> tuple[bool, str]:
        """Whether the logs have been read and answers can be, and why not."""
        can_ask, why = self.questions.is_ready()
        return self.follower.is_ready() if can_ask else (False, why)


def caller_of(request: Request) -> TokenEntry:
    """Who called; the gate has put it there."""
    caller = request.state.caller
    assert isinstance(caller, TokenEntry)
    return caller


def idempotency_of(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="A repeated request with the same key gets the first reply and does nothing.",
            max_length=200,
            examples=["7f9c1a52-rollback"],
        ),
    ] = None,
) -> str | None:
    """The identity that the idempotency layer made of the caller's key, if there was one."""
    del idempotency_key
    identity = getattr(request.state, "idempotency", None)
    return None if identity is None else str(identity)


Caller = Annotated[TokenEntry, Depends(caller_of)]
Key = Annotated[str | None, Depends(idempotency_of)]
