"""What needs no token: health, metrics, and the operations page's own files."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from services.api.core.documents import Problem
from services.api.parts import Parts
from services.api.problems import ProblemRaised

PAGE = Path(__file__).parents[1] / "page"
TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "views.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def showing_routes(parts: Parts) -> APIRouter:
    """The page holds no data: what it shows it asks for with the token of whoever looks."""
    router = APIRouter()
    files = {name: (PAGE / name).read_bytes() for name in TYPES}

    @router.get("/healthz", tags=["health"], response_class=Response, responses=_TEXT)
    async def healthz() -> Response:
        """The process lives."""
        return Response("alive\n", media_type="text/plain")

    @router.get(
        "/readyz",
        tags=["health"],
        response_class=Response,
        responses={
            **_TEXT,
            503: {"description": "Not yet, and why.", "content": _plain("reading what was logged before\n")},
        },
    )
    async def readyz() -> Response:
        """The logs have been read."""
        ready, reason = parts.is_ready()
        return Response(f"{reason}\n", 200 if ready else 503, media_type="text/plain")

    @router.get("/metrics", tags=["health"], response_class=Response, responses=_TEXT)
    async def metrics() -> Response:
        """Prometheus's text format."""
        return Response(generate_latest(parts.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(files["index.html"], headers=HEADERS, media_type=TYPES["index.html"])

    @router.get("/page/{name}", include_in_schema=False, responses={404: {"model": Problem}})
    async def page_file(name: str) -> Response:
        if name not in files:
            raise ProblemRaised(404, "the page has no such file")
        return Response(files[name], headers=HEADERS, media_type=TYPES[name])

    return router


def _plain(example: str) -> dict[str, object]:
    return {"text/plain": {"schema": {"type": "string"}, "example": example}}


_TEXT: dict[int | str, dict[str, object]] = {200: {"content": _plain("alive\n")}}
