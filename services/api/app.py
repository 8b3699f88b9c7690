"""The application: routes behind the gate, errors as problem documents, one OpenAPI document."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.responses import Response

from services.api.core.access_rules import ACCESS, ANONYMOUS
from services.api.core.documents import Problem, Told
from services.api.gate import Gate
from services.api.idempotency import Idempotency
from services.api.parts import Parts
from services.api.problems import MEDIA_TYPE, add_problem_handlers
from services.api.routes.asking import asking_routes
from services.api.routes.changing import changing_routes
from services.api.routes.ordering import ordering_routes
from services.api.routes.reading import reading_routes
from services.api.routes.showing import showing_routes

VERSION = "1.0.0"
DOCUMENT = "/openapi.json"
DESCRIPTION = """
People on call see what serves, what is being judged and why, and give orders; applications ask questions as they would
ask OpenAI. Every call needs a bearer token, makes an audit event, and errors are problem documents (RFC 9457).
"""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No token, or one that was withdrawn."},
    403: {"model": Problem, "description": "The token's role does not allow this."},
    422: {"model": Problem, "description": "The request is not understood."},
    503: {"model": Problem, "description": "Kafka, the store or the settings do not allow it now."},
}
POSTED: dict[str, str] = {
    "400": "The body is no JSON, or a header is malformed.",
    "409": "It conflicts with what is going on.",
    "413": "The body is too large.",
}


def build_app(parts: Parts) -> FastAPI:
    """The ASGI application; raises RuntimeError where a route has no entry in the table of roles."""
    app = FastAPI(
        title="TwinLoop",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    shown = showing_routes(parts)
    routers = [reading_routes(parts), ordering_routes(parts), changing_routes(parts), asking_routes(parts)]
    _refuse_unlisted([shown, *routers])
    app.include_router(shown)
    for router in routers:
        app.include_router(router, responses=PROBLEMS)

    @app.get(DOCUMENT, include_in_schema=False)
    async def openapi_document() -> Response:
        return Response(orjson.dumps(openapi(app)), media_type="application/json")

    add_problem_handlers(app)
    # The last one added is the first one reached.
    app.add_middleware(
        Idempotency,
        clock=parts.clock,
        valid_s=parts.section.idempotency_s,
        keep=parts.section.idempotency_keys,
    )
    app.add_middleware(
        Gate,
        tokens=parts.tokens,
        auditor=parts.auditor,
        metrics=parts.metrics,
        clock=parts.clock,
        max_body_bytes=parts.section.max_body_bytes,
    )
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: bearer tokens, roles, problem documents, idempotency."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "Made by `twinloop tokens add`."}
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe(operation, ACCESS[method.upper(), path], is_post=method == "post")
    _restore_examples(components["schemas"])
    return document


def _restore_examples(schemas: dict[str, Any]) -> None:
    """FastAPI drops every null from the document, also from examples, where a required member may be null."""
    for model in Told.__subclasses__():
        extra = model.model_config.get("json_schema_extra")
        if isinstance(extra, dict) and model.__name__ in schemas:
            schemas[model.__name__]["examples"] = extra["examples"]


def _describe(operation: dict[str, Any], role: str, *, is_post: bool) -> None:
    responses = operation["responses"]
    if role == ANONYMOUS:
        operation["security"] = []
        return
    operation["security"] = [{"token": []}]
    operation["description"] = f"{operation.get('description', '')}\n\nRole: {role}."
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    if is_post:
        for status, words in POSTED.items():
            responses.setdefault(status, {"description": words, "content": {MEDIA_TYPE: problem}})
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = {MEDIA_TYPE: problem}


def _refuse_unlisted(routers: list[APIRouter]) -> None:
    routes = {
        (method, route.path)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    routes.add(("GET", DOCUMENT))
    if routes != set(ACCESS):
        wrong = sorted(routes ^ set(ACCESS))
        raise RuntimeError(f"routes and services/api/core/access_rules.py differ: {wrong}")
