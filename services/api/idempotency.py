"""`Idempotency-Key`: a repeated POST gets the reply of the first, and does nothing.

After the IETF draft `draft-ietf-httpapi-idempotency-key-header`. Replies are kept in memory; across a restart of the
API the ids made from the key (see `order_nonce`) still keep an order, a question or a feedback from being done twice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problems import problem_response
from twinloop.api_tokens import TokenEntry
from twinloop.canonical import sha256_hex
from twinloop.clock import Clock

HEADER = "idempotency-key"
MAX_LENGTH = 200
_MAX_KEPT_BYTES = 256 * 1024


@dataclass
class _Reply:
    request: str
    """Digest of the body it answers."""
    at: float
    start: Message | None = None
    """Absent while the first call is still being answered."""
    body: bytes = b""


class Idempotency:
    """ASGI middleware behind the gate: keys are the caller's own."""

    def __init__(self, app: ASGIApp, *, clock: Clock, valid_s: float, keep: int) -> None:
        self._app, self._clock, self._valid_s, self._keep = app, clock, valid_s, keep
        self._replies: OrderedDict[str, _Reply] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("state", {}).get("caller")
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" and caller is not None else None
        if key is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if not 1 <= len(key) <= MAX_LENGTH or not key.isascii() or not key.isprintable():
            detail = f"an Idempotency-Key has 1 to {MAX_LENGTH} printable ASCII characters"
            await problem_response(scope["path"], 400, detail, code="idempotency-key")(scope, receive, send)
            return
        body = await _whole(receive)
        identity = key_identity(caller, scope["path"], key)
        scope["state"]["idempotency"] = identity
        known = self._known(identity)
        if known is not None:
            await self._repeat(known, sha256_hex(body), scope, receive, send)
            return
        reply = _Reply(sha256_hex(body), self._clock.monotonic())
        self._replies[identity] = reply
        try:
            await self._app(scope, _once(body, receive), _Kept(send, reply))
        finally:
            self._settle(identity, reply)

    def _known(self, identity: str) -> _Reply | None:
        now = self._clock.monotonic()
        gone: list[str] = []
        for oldest, reply in self._replies.items():
            if now - reply.at <= self._valid_s and len(self._replies) - len(gone) <= self._keep:
                break
            # One that is still being answered is never forgotten: its repetition would be done beside it.
            if reply.start is not None:
                gone.append(oldest)
        for oldest in gone:
            del self._replies[oldest]
        return self._replies.get(identity)

    async def _repeat(self, known: _Reply, request: str, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if known.request != request:
            detail = "this Idempotency-Key was used with another body; use a new one for a new request"
            await problem_response(path, 422, detail, code="idempotency-reuse")(scope, receive, send)
        elif known.start is None:
            detail = "the first request with this Idempotency-Key is still being answered"
            await problem_response(
                path, 409, detail, code="idempotency-in-flight", headers={"Retry-After": "1"}
            )(scope, receive, send)
        else:
            headers = [*known.start["headers"], (b"idempotency-replayed", b"true")]
            await send({**known.start, "headers": headers})
            await send({"type": "http.response.body", "body": known.body})

    def _settle(self, identity: str, reply: _Reply) -> None:
        """Keep what was answered; forget failures of ours, which may be tried again with the same key."""
        if reply.start is None or reply.start["status"] >= 500 or len(reply.body) > _MAX_KEPT_BYTES:
            self._replies.pop(identity, None)


def key_identity(caller: TokenEntry, path: str, key: str) -> str:
    """Unlike for any other caller, route or key."""
    return sha256_hex("\0".join((caller.id, path, key)).encode())


async def _whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, then whatever comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed


class _Kept:
    def __init__(self, send: Send, reply: _Reply) -> None:
        self._send, self._reply = send, reply
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))
            if not message.get("more_body"):
                # Only a whole reply may be repeated.
                self._reply.start, self._reply.body = self._start, b"".join(self._parts)
        await self._send(message)
