"""The HTTP API: `/v1/match` goes straight to its endpoint, and Starlette routes the other paths to the service."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from kvsync_events import Hash
from kvsync_indexer import bounded
from kvsync_indexer.api import (
    AuditRequest,
    BlockLine,
    DigestAnswer,
    DigestRow,
    Health,
    PredictionReport,
    PublishersAnswer,
)
from kvsync_indexer.bounded import read_request
from kvsync_indexer.core import BlockRow, UnknownPublisherError
from kvsync_indexer.errors import RequestError
from kvsync_indexer.service.match import MatchEndpoint
from kvsync_indexer.service.metrics import IndexerCollector, render_metrics
from kvsync_indexer.service.openapi import describe
from kvsync_indexer.service.quick import QuickMatch
from kvsync_indexer.service.requests import decode_request, error_body
from kvsync_indexer.service.service import IndexService, unknown_publisher
from kvsync_indexer.service.ui import ui_routes
from kvsync_indexer.serving import Receive, Scope, Send

LINES_PER_CHUNK = 2000
MAX_WAIT_QUIET_S = 600.0
MOST_DECISIONS = 200
"""The most decisions in one answer."""


class IndexApp:
    """The ASGI application of the index."""

    def __init__(self, service: IndexService) -> None:
        self._service = service
        self._access = service.access
        headers = {"www-authenticate": "Bearer"}
        self._refusal = Response(error_body("a valid bearer token is needed"), 401, headers, "application/json")
        quick = QuickMatch.of(service.ingest, service.monotonic)
        self._match = MatchEndpoint(service.matcher, quick, service.match_seconds)
        self.quick_match = self._match.quick
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # CPU and memory of this process
        self.registry.register(
            IndexerCollector(
                service.ingest,
                service.core,
                self._match,
                service.auditor,
                service.snapshots,
                service.monotonic,
                service.discovery,
            )
        )
        self._rest = Starlette(
            routes=[
                Route("/v1/publishers", self._publishers),
                Route("/v1/publishers/{name:path}/blocks", self._blocks),
                Route("/v1/publishers/{name:path}/digest", self._digest),
                Route("/v1/publishers/{name:path}/resync", self._resync, methods=["POST"]),
                Route("/v1/publishers/{name:path}", self._publisher),
                Route("/v1/audit", self._audit, methods=["POST"]),
                Route("/v1/predictions", self._predictions, methods=["POST"]),
                Route("/v1/snapshot", self._snapshot),
                Route("/v1/history", self._history),
                Route("/v1/decisions", self._decisions),
                *ui_routes(),
                Route("/openapi.json", self._openapi),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _http_error, RequestError: _request_error},
        )

    @property
    def routes(self) -> list[BaseRoute]:
        """Every route but `/v1/match`."""
        return self._rest.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, if the client may make it."""
        if scope["type"] == "http" and self._access.limited:
            authorization = dict(scope["headers"]).get(b"authorization")
            if not self._access.allows(scope["path"], authorization):
                await self._refusal(scope, receive, send)
                return
        if scope["type"] == "http" and scope["path"] == "/v1/match":
            await self._match(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _publishers(self, _request: Request) -> Response:
        return _json(PublishersAnswer(self._service.publishers()))

    async def _publisher(self, request: Request) -> Response:
        return _json(self._service.publisher(request.path_params["name"]))

    async def _blocks(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            rows = self._service.core.dump(name)
        except UnknownPublisherError:
            raise unknown_publisher(name) from None
        return StreamingResponse(_ndjson(rows), media_type="application/x-ndjson")

    async def _digest(self, request: Request) -> Response:
        link = self._service.link(request.path_params["name"])
        spec, machine = link.spec, link.machine
        try:
            rows = self._service.core.digest(spec.name)
        except UnknownPublisherError:
            raise unknown_publisher(spec.name) from None
        digests = [DigestRow(spec.rank, row.medium, row.count, row.digest_hex, row.group_idx) for row in rows]
        return _json(DigestAnswer(spec.name, digests, machine.position.last_seq, str(machine.state)))

    async def _resync(self, request: Request) -> Response:
        return _json(await self._service.resync(request.path_params["name"]))

    async def _audit(self, request: Request) -> Response:
        body = await read_request(request.receive, bounded.AUDIT_REQUEST)
        wanted = decode_request(body, AuditRequest) if body.strip() else AuditRequest()
        if not 0 <= wanted.wait_quiet_s <= MAX_WAIT_QUIET_S:
            raise RequestError(
                422, f"wait_quiet_s = {wanted.wait_quiet_s}: must be between 0 and {MAX_WAIT_QUIET_S:g}",
                field="wait_quiet_s",
            )  # fmt: skip
        for name in wanted.publishers or ():
            self._service.link(name)
        return _json(await self._service.auditor.audit(wanted.publishers, wait_quiet_s=wanted.wait_quiet_s))

    async def _predictions(self, request: Request) -> Response:
        body = await read_request(request.receive, bounded.PREDICTION_REPORT)
        return _json(self._service.record_prediction(decode_request(body, PredictionReport)))

    async def _snapshot(self, _request: Request) -> Response:
        data = await self._service.snapshots.take()
        return Response(data, media_type="application/octet-stream")

    async def _history(self, request: Request) -> Response:
        return _json(self._service.history.answer(_number(request, "since", 0.0)))

    async def _decisions(self, request: Request) -> Response:
        newest = self._service.newest_decisions
        if newest is None:
            raise RequestError(404, "no router runs in this process")
        limit = _number(request, "limit", MOST_DECISIONS)
        return _json({"decisions": newest(int(max(0, min(limit, MOST_DECISIONS))))})

    async def _openapi(self, _request: Request) -> Response:
        return _json(describe())

    async def _healthz(self, _request: Request) -> Response:
        problem = self._service.health_problem()
        return _json(Health(problem is None, problem), 200 if problem is None else 503)

    async def _readyz(self, _request: Request) -> Response:
        readiness = self._service.readiness()
        return _json(readiness, 200 if readiness.ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        data = await asyncio.to_thread(render_metrics, self.registry)
        return Response(data, media_type=CONTENT_TYPE_LATEST)


def _number(request: Request, name: str, default: float) -> float:
    """The query parameter `name`, which must be a finite number. Raises RequestError."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(422, f"{name} = {text[:40]!r}: must be a number", field=name)
    return value


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _ndjson(rows: Iterator[BlockRow]) -> AsyncIterator[bytes]:
    """Lines in chunks, with a pause after each, so that a long dump does not delay other requests."""
    encoder = msgspec.json.Encoder()
    lines: list[bytes] = []
    for row in rows:
        line = BlockLine(_json_hash(row.hash), None, row.medium, row.group_idx, row.copies, row.attached)
        if row.parent is not None:
            line.parent = _json_hash(row.parent)
        lines.append(encoder.encode(line))
        if len(lines) >= LINES_PER_CHUNK:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
            await asyncio.sleep(0)
    if lines:
        yield b"\n".join(lines) + b"\n"


def _json_hash(block_hash: Hash) -> int | str:
    return block_hash.hex() if isinstance(block_hash, bytes) else block_hash


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = {404: "no such path", 405: "method not allowed here"}.get(status, str(getattr(error, "detail", error)))
    headers = error.headers if isinstance(error, HTTPException) else None
    return Response(error_body(message, None), status, headers, media_type="application/json")


async def _request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return Response(error_body(str(error), error.field), error.status, media_type="application/json")
