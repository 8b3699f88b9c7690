"""The gate in front of every route: who calls, may they, is the body small enough, and an audit event of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.audit import AuditEntry
from services.api.auditing import Auditor
from services.api.core.access_rules import ACCESS, ANONYMOUS, audit_action, methods_of, template_of
from services.api.metrics import ApiMetrics
from services.api.problems import problem_response, unexpected_response
from services.api.token_file import TokenFile
from twinloop.api_tokens import TokenEntry, TokenRole, includes
from twinloop.clock import Clock
from twinloop.errors import ConfigError

NOBODY = "anonymous"


@dataclass(frozen=True)
class Call:
    """What the gate knows about one request."""

    method: str
    path: str
    """The route's template, or `unknown`."""
    caller: TokenEntry | None


class Gate:
    """ASGI middleware; anonymous callers reach the routes marked so in `ACCESS` and no others."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: TokenFile,
        auditor: Auditor,
        metrics: ApiMetrics,
        clock: Clock,
        max_body_bytes: int,
    ) -> None:
        self._app, self._tokens = app, tokens
        self._auditor, self._metrics, self._clock = auditor, metrics, clock
        self._max_body = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = template_of(scope["method"], scope["path"])
        wanted = ACCESS[scope["method"], path] if path is not None else "viewer"
        if wanted == ANONYMOUS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        caller, refusal = self._caller(scope, headers, wanted)
        call = Call(scope["method"], path or "unknown", caller)
        started = self._clock.monotonic()
        noted = _Noted(send, lambda status: self._note(call, status, started))
        if refusal is not None:
            await refusal(scope, receive, noted)
            return
        if path is None:
            await _nothing_here(scope)(scope, receive, noted)
            return
        scope.setdefault("state", {})["caller"] = caller
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._max_body:
            await self._too_large(scope)(scope, receive, noted)
            return
        limited = _Limited(receive, self._max_body)
        try:
            await self._app(scope, limited, _Unless(noted, limited))
        except BodyTooLarge:
            if noted.has_started:
                raise
        except Exception as error:
            # The framework's last handler stands outside this gate, where nothing is audited or counted.
            if noted.has_started:
                raise
            await unexpected_response(scope["path"], error)(scope, receive, noted)
        if limited.is_over and not noted.has_started:
            await self._too_large(scope)(scope, receive, noted)

    def _caller(
        self, scope: Scope, headers: Headers, wanted: TokenRole
    ) -> tuple[TokenEntry | None, Response | None]:
        path = scope["path"]
        scheme, _, token = headers.get("authorization", "").partition(" ")
        try:
            entry = self._tokens.holder(token.strip()) if scheme.lower() == "bearer" else None
        except ConfigError as error:
            return None, problem_response(path, 503, str(error), code="configuration")
        if entry is None:
            return None, problem_response(
                path,
                401,
                "a bearer token is needed; `twinloop tokens add` makes one",
                code="no-token",
                headers={"WWW-Authenticate": 'Bearer realm="twinloop"'},
            )
        if not includes(entry.role, wanted):
            return entry, problem_response(
                path, 403, f"this needs the role {wanted}, {entry.id} is {entry.role}", code="role"
            )
        return entry, None

    def _too_large(self, scope: Scope) -> Response:
        detail = f"a body may have {self._max_body} bytes"
        return problem_response(scope["path"], 413, detail, code="too-large")

    def _note(self, call: Call, status: int, started: float) -> None:
        """As soon as the status is known: a stream may stay open for hours."""
        self._metrics.called(call.path, call.method, status, self._clock.monotonic() - started)
        result: Literal["accepted", "refused", "failed"] = (
            "accepted" if status < 400 else "refused" if status < 500 else "failed"
        )
        self._auditor.note(
            AuditEntry(
                at=self._clock.now_ms(),
                actor=call.caller.id if call.caller is not None else NOBODY,
                via="api",
                action=audit_action(call.method, call.path),
                target=call.path,
                result=result,
                detail=f"status {status}",
            )
        )


def _nothing_here(scope: Scope) -> Response:
    """What is not in the table is never handed on."""
    methods = methods_of(scope["path"])
    if methods:
        allow = ", ".join(methods)
        return problem_response(scope["path"], 405, f"use {allow}", headers={"Allow": allow})
    return problem_response(scope["path"], 404, "there is nothing here; /openapi.json lists what there is")


class BodyTooLarge(Exception):
    """More bytes came than were announced or allowed."""


class _Limited:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit

    @property
    def is_over(self) -> bool:
        return self._left < 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise BodyTooLarge
        return message


class _Unless:
    """Holds back what the framework makes of a body that was cut off: the gate answers that itself."""

    def __init__(self, noted: _Noted, limited: _Limited) -> None:
        self._noted, self._limited = noted, limited

    async def __call__(self, message: Message) -> None:
        if self._noted.has_started or not self._limited.is_over:
            await self._noted(message)


class _Noted:
    """Passes the response on, notes its status, and adds the headers every reply carries."""

    def __init__(self, send: Send, note: Callable[[int], None]) -> None:
        self._send, self._note = send, note
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            self._note(message["status"])
            known = {name.lower() for name, _ in message["headers"]}
            if b"cache-control" not in known:
                message["headers"] = [*message["headers"], (b"cache-control", b"no-store")]
        await self._send(message)
