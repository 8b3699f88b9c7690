"""Errors as problem documents (RFC 9457), and where this project's own errors become HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from twinloop.errors import (
    ArtifactError,
    CommandRefused,
    ConfigError,
    InvalidEvent,
    NotReady,
    SignatureError,
    Transient,
    TwinLoopError,
)
from twinloop.telemetry.logging import get_logger

MEDIA_TYPE = "application/problem+json"
OPENAI_PREFIX = "/v1/"
STATUS_OF: tuple[tuple[type[TwinLoopError], int, str], ...] = (
    (CommandRefused, 409, "refused"),
    (InvalidEvent, 422, "invalid-event"),
    (Transient, 503, "try-again"),
    (NotReady, 503, "not-ready"),
    (ArtifactError, 502, "artifact"),
    (SignatureError, 502, "signature"),
    (ConfigError, 503, "configuration"),
)
_log = get_logger(__name__)


class ProblemRaised(Exception):
    """A route's own problem; `more` becomes further members of the document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.code = status, detail, code
        self.headers, self.more = dict(headers or {}), more


def problem_response(
    path: str,
    status: int,
    detail: str,
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """The document; under `/v1/` it also has the `error` member that OpenAI's clients read."""
    title = HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": f"urn:twinloop:problem:{code}" if code else "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        **(more or {}),
    }
    if path.startswith(OPENAI_PREFIX):
        kind = "invalid_request_error" if status < 500 else "server_error"
        body["error"] = {"message": detail or title, "type": kind, "param": None, "code": code or None}
    return Response(orjson.dumps(body), status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def unexpected_response(path: str, error: Exception) -> Response:
    """What is told of an error nobody foresaw; its traceback goes to the log and nowhere else."""
    _log.error("unexpected", path=path, kind=type(error).__name__, exc_info=error)
    return problem_response(path, 500, "an error nobody foresaw; the API's log has it", code="unexpected")


def add_problem_handlers(app: FastAPI) -> None:
    """Every error leaves the application as a problem document."""

    def raised(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemRaised)
        return problem_response(
            request.url.path,
            error.status,
            error.detail,
            code=error.code,
            headers=error.headers,
            more=error.more,
        )

    def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem_response(
            request.url.path, error.status_code, _words(error), headers=error.headers or {}
        )

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Without the input: it may hold what a user wrote.
        faults = [
            {"at": ".".join(map(str, fault["loc"])), "says": str(fault["msg"])[:300]}
            for fault in error.errors()[:20]
        ]
        detail = "; ".join(f"{fault['at']}: {fault['says']}" for fault in faults[:5])
        return problem_response(
            request.url.path, 422, detail, code="invalid-request", more={"faults": faults}
        )

    def ours(request: Request, error: Exception) -> Response:
        for kind, status, code in STATUS_OF:
            if isinstance(error, kind):
                headers = {"Retry-After": "1"} if status == 503 else {}
                return problem_response(request.url.path, status, str(error), code=code, headers=headers)
        return unexpected(request, error)

    def unexpected(request: Request, error: Exception) -> Response:
        return unexpected_response(request.url.path, error)

    app.add_exception_handler(ProblemRaised, raised)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(TwinLoopError, ours)
    app.add_exception_handler(Exception, unexpected)


def _words(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing here; /openapi.json lists what there is"
    return "" if error.detail == HTTPStatus(error.status_code).phrase else str(error.detail)
