"""The proxy as an ASGI application: the paths that it serves besides the inference requests themselves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvsync_indexer.serving import Receive, Scope, Send
from kvsync_router.decisions.journal import MOST_RECORDS
from kvsync_router.decisions.paths import OTHER_PATHS, PROMPT_PATHS, api_of, stored_response
from kvsync_router.errors import RequestRefusedError
from kvsync_router.proxy.proxy import Proxy
from kvsync_router.routing import Routing

MOST_DECISIONS = 100
"""Decisions in an answer that asks for no other number."""


class ProxyApp:
    """The ASGI application. Its lifespan starts and stops the routing."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self._proxy = Proxy(routing)
        self._app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/endpoints", self._endpoints),
                Route("/v1/decisions", self._decisions),
                *(Route(path, _only_post) for path in (*PROMPT_PATHS, *OTHER_PATHS)),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _openai_error},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        await (self._proxy if _proxied(scope) else self._app)(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self.routing.start()
        try:
            yield
        finally:
            await self.routing.stop()
            self._proxy.close()

    async def _models(self, request: Request) -> Response:
        """The models of every endpoint, each id once, in the order of the endpoints' names."""
        keeper, rotation = self.routing.keeper, self.routing.table.rotation(None)
        key = request.headers.get("authorization")
        lists = await asyncio.gather(*(keeper.fetch_models(endpoint, key) for endpoint in rotation))
        merged: dict[str, dict[str, Any]] = {}
        for models in lists:
            for model in models or ():
                merged.setdefault(model.id, model.whole)
        for endpoint, models in zip(rotation, lists, strict=True):
            if models is None:  # it refuses the key, say; its publisher still names a model
                merged.setdefault(endpoint.info.model, {"id": endpoint.info.model, "object": "model"})
        if not merged:
            error = RequestRefusedError(503, "no engine could answer", "service_unavailable", code="503")
            return _json(error.body(), error.status)
        return _json({"object": "list", "data": list(merged.values())})

    async def _endpoints(self, _request: Request) -> Response:
        return _json({"policy": self.routing.config.policy, "endpoints": self.routing.table.statistics()})

    async def _decisions(self, request: Request) -> Response:
        given = request.query_params.get("limit", str(MOST_DECISIONS))
        if not (given.isascii() and given.isdigit()):
            error = RequestRefusedError(400, "limit: must be a number", "invalid_request_error", param="limit")
            return _json(error.body(), error.status)
        return _json({"decisions": self.routing.picker.journal.newest(min(int(given[:9] or 0), MOST_RECORDS))})

    async def _healthz(self, _request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _readyz(self, _request: Request) -> Response:
        ready = bool(self.routing.table.rotation(None))
        return Response("ok\n" if ready else "no endpoint\n", 200 if ready else 503, media_type="text/plain")

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self.routing.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _proxied(scope: Scope) -> bool:
    """Whether a request goes to an engine."""
    if scope["type"] != "http":
        return False
    if scope["method"] == "POST":
        return api_of(scope["path"]) is not None
    return scope["method"] == "GET" and stored_response(scope["path"]) is not None


async def _only_post(_request: Request) -> Response:
    raise HTTPException(405)


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _openai_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = "NotFoundError" if status == 404 else "invalid_request_error"
    refused = RequestRefusedError(status, str(getattr(error, "detail", error)), kind, code=str(status))
    return _json(refused.body(), status)
