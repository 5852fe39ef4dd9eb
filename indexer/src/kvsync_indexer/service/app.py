"""The HTTP API except the hot path: Starlette routes over the service's parts."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kvsync_indexer.core import BlockRow, UnknownPublisherError
from kvsync_indexer.errors import RequestError
from kvsync_indexer.service.match import (
    MatchEndpoint,
    Receive,
    Scope,
    Send,
    decode_problem,
    error_body,
)
from kvsync_indexer.service.metrics import IndexerCollector
from kvsync_indexer.service.quick import QuickMatch
from kvsync_indexer.service.service import IndexService
from kvsync_indexer.service.views import publisher_row

ROWS_A_CHUNK = 2000
MAX_WAIT_QUIET_S = 600.0


class AuditRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/audit; empty for everything at once."""

    publishers: list[str] | None = None
    wait_quiet_s: float = 0.0
    """How long to wait for engines to be quiet and for the index to catch up."""


class PredictionReport(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/predictions: one routed request that was answered."""

    publisher: str
    predicted_tokens: int
    """Matched tokens the router was told."""
    cached_tokens: int
    """`usage.prompt_tokens_details.cached_tokens` of the answer."""
    prompt_tokens: int | None = None
    """`usage.prompt_tokens`: without it a whole prompt in the cache counts as one block predicted too many."""


class IndexApp:
    """The ASGI application: `/v1/match` straight to its endpoint, the rest through Starlette."""

    def __init__(self, service: IndexService) -> None:
        self._service = service
        self._match = MatchEndpoint(service.matcher, QuickMatch.of(service.ingest, service.monotonic))
        self.quick_match = self._match.quick
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # CPU and memory of this process
        self._registry.register(
            IndexerCollector(
                service.ingest, service.core, self._match, service.auditor, service.monotonic, service.discovery
            )
        )
        self._rest = Starlette(
            routes=[
                Route("/v1/publishers", self._publishers),
                Route("/v1/publishers/{name:path}/blocks", self._blocks),
                Route("/v1/publishers/{name:path}/digest", self._digest),
                Route("/v1/publishers/{name:path}", self._publisher),
                Route("/v1/audit", self._audit, methods=["POST"]),
                Route("/v1/predictions", self._predictions, methods=["POST"]),
                Route("/v1/snapshot", self._snapshot),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _http_error, RequestError: _request_error},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http" and scope["path"] == "/v1/match":
            await self._match(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _publishers(self, _request: Request) -> Response:
        now, core = self._service.monotonic(), self._service.core
        return _json({"publishers": [publisher_row(link, core, now) for link in self._service.ingest.links()]})

    async def _publisher(self, request: Request) -> Response:
        link = self._service.ingest.link(request.path_params["name"])
        if link is None:
            raise _unknown(request.path_params["name"])
        return _json(publisher_row(link, self._service.core, self._service.monotonic()))

    async def _blocks(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            rows = self._service.core.dump(name)
        except UnknownPublisherError:
            raise _unknown(name) from None
        return StreamingResponse(_ndjson(rows), media_type="application/x-ndjson")

    async def _digest(self, request: Request) -> Response:
        name = request.path_params["name"]
        link = self._service.ingest.link(name)
        try:
            rows = self._service.core.digest(name)
        except UnknownPublisherError:
            raise _unknown(name) from None
        if link is None:
            raise _unknown(name)
        digests = [
            {"rank": link.spec.rank, "group_idx": row.group_idx, "medium": row.medium, "count": row.count,
             "digest": row.digest_hex}
            for row in rows
        ]  # fmt: skip
        machine = link.machine
        return _json(
            {"publisher": name, "digests": digests, "last_seq": machine.position.last_seq, "state": str(machine.state)}
        )

    async def _audit(self, request: Request) -> Response:
        body = await request.body()
        try:
            wanted = msgspec.json.decode(body, type=AuditRequest) if body.strip() else AuditRequest()
        except msgspec.MsgspecError as error:
            raise RequestError(422, decode_problem(error, AuditRequest)) from None
        if not 0 <= wanted.wait_quiet_s <= MAX_WAIT_QUIET_S:
            raise RequestError(
                422, f"wait_quiet_s = {wanted.wait_quiet_s}: must be between 0 and {MAX_WAIT_QUIET_S:g}",
                field="wait_quiet_s",
            )  # fmt: skip
        for name in wanted.publishers or ():
            if self._service.ingest.link(name) is None:
                raise _unknown(name)
        report = await self._service.auditor.audit(wanted.publishers, wait_quiet_s=wanted.wait_quiet_s)
        return _json(report)

    async def _predictions(self, request: Request) -> Response:
        try:
            report = msgspec.json.decode(await request.body(), type=PredictionReport)
        except msgspec.MsgspecError as error:
            raise RequestError(422, decode_problem(error, PredictionReport)) from None
        for field in ("predicted_tokens", "cached_tokens", "prompt_tokens"):
            if (getattr(report, field) or 0) < 0:
                raise RequestError(422, f"{field} = {getattr(report, field)}: must not be negative", field=field)
        try:
            totals = self._service.record_prediction(
                report.publisher, report.predicted_tokens, report.cached_tokens, report.prompt_tokens
            )
        except UnknownPublisherError:
            raise _unknown(report.publisher) from None
        return _json({"publisher": report.publisher, "requests": totals.requests, "error": totals.error})

    async def _snapshot(self, _request: Request) -> Response:
        data = await self._service.snapshots.take()
        return Response(data, media_type="application/octet-stream")

    async def _healthz(self, _request: Request) -> Response:
        problem = self._service.health_problem()
        return _json({"ok": problem is None, "problem": problem}, 200 if problem is None else 503)

    async def _readyz(self, _request: Request) -> Response:
        readiness = self._service.readiness()
        return _json(readiness, 200 if readiness["ready"] else 503)

    async def _metrics(self, _request: Request) -> Response:
        data = await asyncio.to_thread(generate_latest, self._registry)
        return Response(data, media_type=CONTENT_TYPE_LATEST)


def _unknown(name: str) -> RequestError:
    return RequestError(404, f"no publisher is named {name!r}; GET /v1/publishers lists them", field="publisher")


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _ndjson(rows: Iterator[BlockRow]) -> AsyncIterator[bytes]:
    """Rows in chunks, so that a long dump does not hold up other requests."""
    encoder = msgspec.json.Encoder()
    lines: list[bytes] = []
    for row in rows:
        fields = row._asdict()
        for key in ("hash", "parent"):
            if isinstance(fields[key], bytes):
                fields[key] = fields[key].hex()
        lines.append(encoder.encode(fields))
        if len(lines) >= ROWS_A_CHUNK:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
            await asyncio.sleep(0)
    if lines:
        yield b"\n".join(lines) + b"\n"


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = {404: "no such path", 405: "method not allowed here"}.get(status, str(getattr(error, "detail", error)))
    return Response(error_body(message, None), status, media_type="application/json")


async def _request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return Response(error_body(str(error), error.field), error.status, media_type="application/json")
