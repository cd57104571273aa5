"""The service as an ASGI application, by FastAPI; and run, by uvicorn.

app = make_app(Service(guard, Offered("net", Wanted((1, 28, 28)))))
serve(app, host="127.0.0.1", port=8080)
"""

import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from signstep.errors import LoadError, MissingExtraError
from signstep.guard.bodies import IMAGES, Refused
from signstep.guard.gate import Gate
from signstep.guard.service import Asked, Service
from signstep.version import VERSION

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

LOG = logging.getLogger("signstep.guard")
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
"""Of every answer; the pages of /ui have a policy of their own."""
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_ANSWER = {
    "200": {"description": "Answered"},
    "202": {"description": "Held for a person; the id leads to it"},
    "400": {"description": "Cannot be read"},
    "401": {"description": "No key, or one that is not known"},
    "403": {"description": "A key that may not ask"},
    "408": {"description": "The body came too slowly"},
    "413": {"description": "Larger than a request may be"},
    "415": {"description": "Of a type that is not read"},
    "422": {"description": "Not answered; always the same body but for its id"},
    "429": {"description": "Too often, or too many wait; Retry-After says when"},
    "503": {"description": "Starting, ending, or too slow"},
}


def make_app(service: Service) -> "FastAPI":
    """The application.

    Raises:
        MissingExtraError: the extra guard is not installed.
    """
    try:
        from fastapi import FastAPI, Request, Response
    except ImportError as error:
        raise MissingExtraError("fastapi", "guard") from error

    Answered = _ascii_answers()  # noqa: N806 - a class

    @asynccontextmanager
    async def alive(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="Signstep guard",
        version=VERSION,
        lifespan=alive,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,  # it would lead to whatever host the request names
    )
    app.state.service = service
    app.add_middleware(Gate, service=service, headers=HEADERS)
    offered = service.offered

    async def answered(request: Request, ask: Callable[[Asked], Awaitable[tuple[int, dict[str, Any]]]]) -> Response:
        began = time.monotonic()
        headers = dict(HEADERS)
        try:
            status, document = await ask(asked_of(request))
            answer = Answered(document, status, headers)
        except Refused as refused:
            status, document = refused.status, {"error": refused.text}
            if refused.wait is not None:
                headers["retry-after"] = str(refused.wait)
            if status == 401:
                headers["www-authenticate"] = "Bearer"
            answer = Answered(document, status, headers)
        except _gone():
            status = 400
            answer = Answered({"error": "the request ended early"}, status, headers)
        except Exception:
            LOG.exception("a request failed")
            status = 500
            answer = Answered({"error": "the service failed"}, status, headers)
        trace = request.headers.get("traceparent", "")
        if status >= 400 and status != 422:
            LOG.info("answered %d %s", status, trace if _TRACE.fullmatch(trace) else "-")
        service.metrics.answered(status, time.monotonic() - began)
        return answer

    @app.post(
        "/predict",
        summary="Answer inputs: an image, or JSON",
        responses=_ANSWER,  # type: ignore[arg-type]
        openapi_extra={"requestBody": _plain_body(service)},
    )
    async def predict(request: Request) -> Response:
        return await answered(request, service.predict)

    @app.post(
        "/v2/models/{name}/infer",
        summary="Answer a tensor, by the Open Inference Protocol v2",
        responses=_ANSWER,  # type: ignore[arg-type]
        openapi_extra={"requestBody": _tensor_body(service)},
    )
    async def infer(name: str, request: Request) -> Response:
        if name != offered.name:
            return Answered({"error": "there is no such model"}, 404, HEADERS)
        return await answered(request, service.infer)

    _add_described(app, service, Answered)
    _add_metrics(app, service, Answered)
    return app


def _add_described(app: "FastAPI", service: Service, answered: "type[JSONResponse]") -> None:
    """What the Open Inference Protocol says of the service and the model."""
    from fastapi import Response

    offered = service.offered

    @app.get("/v2", summary="The service")
    async def server() -> Response:
        return answered({"name": "signstep-guard", "version": VERSION, "extensions": []}, headers=HEADERS)

    @app.get("/v2/health/live", summary="Whether the process lives")
    async def live() -> Response:
        return answered({"live": True}, headers=HEADERS)

    @app.get("/v2/health/ready", summary="Whether requests are answered")
    async def ready() -> Response:
        return answered({"ready": service.ready}, 200 if service.ready else 503, HEADERS)

    @app.get("/v2/models/{name}", summary="The model")
    async def model(name: str) -> Response:
        known = name == offered.name
        document = service.described() if known else {"error": "there is no such model"}
        return answered(document, 200 if known else 404, HEADERS)

    @app.get("/v2/models/{name}/ready", summary="Whether the model answers")
    async def model_ready(name: str) -> Response:
        known = name == offered.name and service.ready
        return answered({"name": offered.name, "ready": known}, 200 if known else 404, HEADERS)


def _add_metrics(app: "FastAPI", service: Service, answered: "type[JSONResponse]") -> None:
    from fastapi import Request, Response

    @app.get("/metrics", summary="Numbers for Prometheus", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        try:
            numbers = await service.numbers(asked_of(request))
        except Refused as refused:
            more = {"www-authenticate": "Bearer"} if refused.status == 401 else {}
            return answered({"error": refused.text}, refused.status, {**HEADERS, **more})
        except LoadError:
            return answered({"error": "the store cannot be read"}, 503, HEADERS)
        return Response(numbers, media_type="text/plain; version=0.0.4", headers=HEADERS)


def _ascii_answers() -> "type[JSONResponse]":
    """Answers in JSON of ASCII alone: what a client is told again may be half a character, which UTF-8 lacks."""
    from fastapi.responses import JSONResponse

    class Answered(JSONResponse):
        """One of them."""

        def render(self, content: Any) -> bytes:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")

    return Answered


def asked_of(request: "Request") -> Asked:
    """What a request says, of each header the first; of one that may be sent once all are read as one."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name.lower()] = f"{headers[name.lower()]},{value}" if name.lower() in headers else value
    return Asked(headers, request.client.host if request.client else "", request.stream())


def _gone() -> type[Exception]:
    from starlette.requests import ClientDisconnect

    return ClientDisconnect


def _plain_body(service: Service) -> dict[str, Any]:
    wanted = service.offered.wanted
    row: dict[str, Any] = {"type": "array", "items": {}, "description": f"Numbers of the shape {list(wanted.shape)}"}
    if wanted.fields:
        record = {
            "type": "object",
            "properties": {name: {"type": "number"} for name in wanted.fields},
            "required": list(wanted.fields),
            "additionalProperties": False,
        }
        row = {"anyOf": [row, record]}
    inputs = {"type": "array", "minItems": 1, "maxItems": service.limits.rows, "items": row}
    content: dict[str, Any] = {
        "application/json": {"schema": {"type": "object", "properties": {"inputs": inputs}, "required": ["inputs"]}}
    }
    if len(wanted.shape) == 3 and wanted.shape[0] in (1, 3):
        content |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGES}
    return {"required": True, "content": content}


def _tensor_body(service: Service) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array", "items": {}},
        },
        "required": ["name", "shape", "datatype", "data"],
    }
    inputs = {"type": "array", "minItems": 1, "maxItems": 1, "items": tensor}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object", "properties": {"inputs": inputs}, "required": ["inputs"]}}
        },
        "description": f"One tensor of the shape [rows, {', '.join(map(str, service.offered.wanted.shape))}]",
    }
