"""Which role each route asks for: one table, and what is not in it is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from twinloop.api_tokens import TokenRole

Anonymous = Literal["anonymous"]
ANONYMOUS: Final[Anonymous] = "anonymous"

ACCESS: Mapping[tuple[str, str], TokenRole | Anonymous] = {
    # Health and metrics, and the page's own files, which hold no data: it asks for a token before it asks anything.
    ("GET", "/healthz"): ANONYMOUS,
    ("GET", "/readyz"): ANONYMOUS,
    ("GET", "/metrics"): ANONYMOUS,
    ("GET", "/"): ANONYMOUS,
    ("GET", "/page/{name}"): ANONYMOUS,
    # What applications and people who look do.
    ("GET", "/openapi.json"): "viewer",
    ("GET", "/whoami"): "viewer",
    ("GET", "/status"): "viewer",
    ("GET", "/releases"): "viewer",
    ("GET", "/decisions"): "viewer",
    ("GET", "/history"): "viewer",
    ("GET", "/qa"): "viewer",
    ("GET", "/canary"): "viewer",
    ("GET", "/ab"): "viewer",
    ("POST", "/answer"): "viewer",
    ("GET", "/v1/models"): "viewer",
    ("GET", "/v1/models/{model}"): "viewer",
    ("POST", "/v1/chat/completions"): "viewer",
    ("POST", "/v1/feedback"): "viewer",
    ("GET", "/v1/feedback/{feedback_id}"): "viewer",
    # Orders, and what holds users' words.
    ("GET", "/review"): "operator",
    ("POST", "/ingest"): "operator",
    ("POST", "/train"): "operator",
    ("POST", "/canary"): "operator",
    ("POST", "/ab"): "operator",
    ("POST", "/ab/stop"): "operator",
    ("POST", "/abort"): "operator",
    ("POST", "/pause"): "operator",
    ("POST", "/resume"): "operator",
    ("POST", "/rollback"): "operator",
    ("GET", "/pr"): "operator",
    ("GET", "/pr/{change}"): "operator",
    ("POST", "/pr"): "operator",
    ("POST", "/pr/{change}/reject"): "operator",
    # What overrides or completes the gates.
    ("POST", "/approve"): "approver",
    ("POST", "/swap"): "approver",
    ("POST", "/pr/{change}/approve"): "approver",
}


_PATTERNS = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for _, path in ACCESS}


def template_of(method: str, path: str) -> str | None:
    """The route a call is for, as the table names it; None where there is none."""
    return next((known for way, known in ACCESS if way == method and _PATTERNS[known].fullmatch(path)), None)


def methods_of(path: str) -> list[str]:
    """The methods this path can be called with."""
    return sorted(way for way, known in ACCESS if _PATTERNS[known].fullmatch(path))


METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
"""Methods of RFC 9110 and RFC 5789. Any other is whatever a caller made up, which no audit event may hold."""


def audit_action(method: str, path: str) -> str:
    """The route as an audit event's action: `post.v1.chat.completions`; a made-up method is `other`."""
    parts = [part.strip("{}") for part in path.split("/") if part]
    known = method.lower() if method in METHODS else "other"
    return ".".join([known, *(parts or ["page"])])[:128]
