"""A router as an ASGI application: `build_router` wires policy, scorer, endpoints and proxy together.

It runs alone (`kvsync-router`) or in the index's process; only the scorer and the directory differ.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvsync_indexer.router.client import HttpClient
from kvsync_indexer.router.config import RouterConfig
from kvsync_indexer.router.directory import Directory
from kvsync_indexer.router.endpoints import EndpointTable
from kvsync_indexer.router.errors import RequestRefusedError
from kvsync_indexer.router.health import Keeper
from kvsync_indexer.router.metrics import RouterMetrics
from kvsync_indexer.router.picking import Picker
from kvsync_indexer.router.predicting import NoPredictions, PredictionSink
from kvsync_indexer.router.proxy import Proxy
from kvsync_indexer.router.scoring import NoScorer, Scorer

PROXIED_PATHS = ("/v1/completions", "/v1/chat/completions")


class Router:
    """One router; `app` serves it, and starts and stops it with the ASGI lifespan."""

    def __init__(
        self,
        config: RouterConfig,
        directory: Directory,
        scorer: Scorer,
        client: HttpClient,
        *,
        predictions: PredictionSink | None = None,
        clock: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.config = config
        self.table = EndpointTable()
        self.metrics = RouterMetrics(self.table.statistics, registry)
        self._client = client
        self._keeper = Keeper(config, self.table, directory, client)
        self._predictions = predictions or NoPredictions()
        picker = Picker(config, self.table, scorer)
        self._proxy = Proxy(config, self.table, picker, self.metrics, self._predictions, client, clock)
        self.app = self._build_app()

    async def start(self) -> None:
        """Open the client, read the endpoints, keep them true."""
        await self._client.start()
        await self._predictions.start(self.metrics.count_prediction)
        await self._keeper.start()

    async def stop(self) -> None:
        """Stop upkeep and close the client."""
        await self._keeper.stop()
        await self._predictions.stop()
        await self._client.stop()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    def _build_app(self) -> Starlette:
        return Starlette(
            routes=[
                *(Route(path, self._proxy, methods=["POST"]) for path in PROXIED_PATHS),
                Route("/v1/models", self._models),
                Route("/v1/endpoints", self._endpoints),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _openai_error},
        )

    async def _models(self, request: Request) -> Response:
        """Models of every endpoint, each id once, in the order of endpoint names."""
        headers = {name: request.headers[name] for name in ("authorization",) if name in request.headers}
        answers = await self._every_models(headers)
        merged: dict[str, dict[str, Any]] = {}
        for answer in answers:
            for model in msgspec.json.decode(answer)["data"]:
                merged.setdefault(model["id"], model)
        if not answers:
            error = RequestRefusedError(503, "no engine could answer", "service_unavailable", code="503")
            return _json(error.body(), error.status)
        return _json({"object": "list", "data": list(merged.values())})

    async def _every_models(self, headers: dict[str, str]) -> list[bytes]:
        rotation = self.table.rotation(None)
        answers = await asyncio.gather(*(self._keeper.fetch_models(endpoint, headers) for endpoint in rotation))
        return [answer for answer in answers if answer is not None]

    async def _endpoints(self, _request: Request) -> Response:
        return _json({"policy": self.config.policy, "endpoints": self.table.statistics()})

    async def _healthz(self, _request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _readyz(self, _request: Request) -> Response:
        ready = bool(self.table.rotation(None))
        return Response("ok\n" if ready else "no endpoint\n", 200 if ready else 503, media_type="text/plain")

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def build_router(
    config: RouterConfig,
    directory: Directory,
    scorer: Scorer | None = None,
    client: HttpClient | None = None,
    *,
    predictions: PredictionSink | None = None,
    clock: Callable[[], float] = time.monotonic,
    registry: CollectorRegistry | None = None,
) -> Router:
    """A router over the endpoints of `directory`, scored by `scorer` (None: policies that need no index).

    `predictions` is told how the index's predictions did (None: nobody is). Sources that ask over HTTP share the
    router's pool: make the `client` first, give it to them and to this.
    """
    pool = client or HttpClient(config.connect_timeout_s)
    return Router(
        config, directory, scorer or NoScorer(), pool, predictions=predictions, clock=clock, registry=registry
    )


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _openai_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = "NotFoundError" if status == 404 else "invalid_request_error"
    refused = RequestRefusedError(status, str(getattr(error, "detail", error)), kind, code=str(status))
    return _json(refused.body(), status)
