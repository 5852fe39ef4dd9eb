"""The OpenAI proxy: bytes in, bytes out, one outcome a request.

A request is placed, sent, and answered with the engine's own bytes as they arrive. Until the first byte of a body
came, another endpoint may still be tried; after it the answer is this engine's, and if the engine dies the client's
connection is cut, so that half an answer never looks whole. A client that leaves cancels its upstream request.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import msgspec
import structlog
from starlette.types import Message, Receive, Scope, Send

from kvsync_indexer.router.config import RouterConfig
from kvsync_indexer.router.endpoints import Endpoint, EndpointTable, Ticket
from kvsync_indexer.router.errors import RequestRefusedError
from kvsync_indexer.router.metrics import RouterMetrics
from kvsync_indexer.router.picking import Picker, Plan
from kvsync_indexer.router.predicting import PredictionSink, Watch
from kvsync_indexer.router.wire import InferenceRequest, parse_request

log = structlog.get_logger(__name__)

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""Answers that another endpoint may do better: queue full, draining, a proxy's own failures."""
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection trailer transfer-encoding"
    b" te upgrade host content-length expect".split()  # codespell:ignore te
)
HEADER_ENDPOINT = b"x-kvsync-endpoint"
HEADER_MATCHED = b"x-kvsync-matched-tokens"
HEADER_POLICY = b"x-kvsync-policy"
HEADER_FALLBACK = b"x-kvsync-fallback"


@dataclass(slots=True)
class Upstream:
    """An answer that has begun: the status, the headers and the first chunk are here."""

    response: aiohttp.ClientResponse
    chunks: AsyncIterator[bytes]
    first: bytes


class UpstreamError(Exception):
    """One attempt failed before its first byte. `down` says that the endpoint took no connection."""

    def __init__(self, reason: str, *, down: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.down = down


class Proxy:
    """ASGI application for one OpenAI path (completions, chat completions)."""

    def __init__(
        self,
        config: RouterConfig,
        table: EndpointTable,
        picker: Picker,
        metrics: RouterMetrics,
        predictions: PredictionSink,
        session: Callable[[], aiohttp.ClientSession],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._table = table
        self._picker = picker
        self._metrics = metrics
        self._predictions = predictions
        self._session = session
        self._clock = clock
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, unless the client leaves first."""
        policy = self._config.policy
        try:
            if self._in_flight >= self._config.max_requests:
                raise RequestRefusedError(429, "the router is full", "rate_limit_error")
            body = await _read_body(receive, self._config.max_body_bytes)
            request = parse_request(body)
        except RequestRefusedError as error:
            self._metrics.requests.labels(policy, "refused").inc()
            await send_error(send, error, {HEADER_POLICY: policy.encode()})
            return
        except _ClientGoneError:
            self._metrics.requests.labels(policy, "disconnected").inc()
            return
        self._in_flight += 1
        serving = asyncio.create_task(self._serve(scope, body, request, send))
        watching = asyncio.create_task(_client_gone(receive))
        try:
            await asyncio.wait((serving, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._in_flight -= 1
            gone = not serving.done()
            for task in (serving, watching):
                task.cancel()
            await asyncio.gather(serving, watching, return_exceptions=True)
        if gone:
            self._metrics.requests.labels(policy, "disconnected").inc()
        else:
            serving.result()

    async def _serve(self, scope: Scope, body: bytes, request: InferenceRequest, send: Send) -> None:
        begun = self._clock()
        plan = await self._picker.plan(request)
        self._metrics.decision_seconds.observe(self._clock() - begun)
        if plan.fallback is not None:
            self._metrics.fallbacks.inc()
        try:
            endpoint, ticket, matched, upstream = await self._place(scope, body, request, plan)
        except RequestRefusedError as error:
            self._metrics.requests.labels(plan.policy.name, "refused" if error.status == 404 else "failed").inc()
            await send_error(send, error, {HEADER_POLICY: plan.policy.name.encode()})
            return
        self._metrics.first_byte_seconds.observe(self._clock() - begun)
        self._metrics.prompt_tokens.inc(plan.prompt_tokens)
        self._metrics.matched_tokens.inc(matched)
        ours = [
            (HEADER_ENDPOINT, endpoint.info.name.encode()),
            (HEADER_MATCHED, str(matched).encode()),
            (HEADER_POLICY, plan.policy.name.encode()),
        ]
        if plan.fallback is not None:
            ours.append((HEADER_FALLBACK, b"index-away"))
        try:
            watch = self._watch(request, plan, endpoint, upstream)
            whole = await _relay(upstream, ticket, ours, send, watch)
        finally:
            ticket.finish()
            upstream.response.close()
        self._metrics.requests.labels(plan.policy.name, "ok" if whole else "cut").inc()
        if whole and watch is not None:
            watch.done()

    def _watch(self, request: InferenceRequest, plan: Plan, endpoint: Endpoint, upstream: Upstream) -> Watch | None:
        """Of an answer that can be held against a prediction: the index said what this endpoint holds."""
        predicted = plan.matched_tokens.get(endpoint.info.name) if request.single else None
        if predicted is None or upstream.response.status != 200 or not self._predictions.wanted:
            return None
        kind = upstream.response.headers.get("content-type", "")
        return Watch(self._predictions, self._metrics.count_prediction, endpoint, predicted, kind)

    async def _place(
        self, scope: Scope, body: bytes, request: InferenceRequest, plan: Plan
    ) -> tuple[Endpoint, Ticket, int, Upstream]:
        """Try endpoints until one begins to answer; RequestRefusedError when none does."""
        if len(self._table) and not self._table.knows_model(request.model):
            raise RequestRefusedError(
                404, f"The model `{request.model}` does not exist.", "NotFoundError", param="model", code="404"
            )
        tried: list[str] = []
        last = "no endpoint is in the rotation"
        for attempt in range(self._config.attempts):
            picked = self._picker.pick(plan, request.model, tried)
            if picked is None:
                break
            endpoint, matched = picked
            ticket = Ticket(endpoint, max(plan.prompt_tokens - matched, 0), plan.prompt_tokens + request.output_tokens)
            try:
                upstream = await self._attempt(scope, body, endpoint, final=attempt + 1 == self._config.attempts)
            except UpstreamError as error:
                ticket.finish()
                self._failed(endpoint, error)
                tried.append(endpoint.info.name)
                last = f"{endpoint.info.name}: {error.reason}"
                continue
            except BaseException:
                ticket.finish()
                raise
            return endpoint, ticket, matched, upstream
        status, kind = (502, "bad_gateway") if tried else (503, "service_unavailable")
        raise RequestRefusedError(status, f"no engine could answer ({last})", kind, code=str(status))

    def _failed(self, endpoint: Endpoint, error: UpstreamError) -> None:
        self._metrics.retries.labels("refused" if error.down else "failed").inc()
        if error.down:
            self._table.mark_down(endpoint)
            log.warning("endpoint out of the rotation", endpoint=endpoint.info.name, reason=error.reason)
        else:
            endpoint.failures += 1

    async def _attempt(self, scope: Scope, body: bytes, endpoint: Endpoint, *, final: bool) -> Upstream:
        """Send the request and wait for the first byte of the answer's body."""
        url = endpoint.info.url + scope["path"]
        if scope["query_string"]:
            url += "?" + scope["query_string"].decode("latin-1")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in HOP_BY_HOP
        ]
        if endpoint.info.rank is not None:
            headers.append(("X-data-parallel-rank", str(endpoint.info.rank)))
        response = None
        try:
            async with asyncio.timeout(self._config.first_byte_timeout_s):
                response = await self._session().post(url, data=body, headers=headers, allow_redirects=False)
                if response.status in RETRIED_STATUSES and not final:
                    raise UpstreamError(f"status {response.status}")
                chunks = response.content.iter_any()
                first = await anext(chunks, b"")
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                raise UpstreamError("connection refused", down=True) from error
            if isinstance(error, TimeoutError | aiohttp.ClientError | OSError):
                raise UpstreamError(type(error).__name__) from error
            raise
        return Upstream(response, chunks, first)


async def _relay(
    upstream: Upstream, ticket: Ticket, ours: list[tuple[bytes, bytes]], send: Send, watch: Watch | None
) -> bool:
    """Pass the answer on as it arrives; False when the engine broke off (the connection is then left unfinished)."""
    ticket.prefilled()
    headers = [(name.lower(), value) for name, value in upstream.response.raw_headers]
    kept = [(name, value) for name, value in headers if name not in HOP_BY_HOP or name == b"content-length"]
    await send({"type": "http.response.start", "status": upstream.response.status, "headers": kept + ours})
    chunk = upstream.first
    try:
        while chunk:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if watch is not None:
                watch.add(chunk)
            chunk = await anext(upstream.chunks, b"")
    except (aiohttp.ClientError, OSError) as error:
        log.warning("answer cut short", endpoint=ticket.endpoint.info.name, reason=type(error).__name__)
        return False
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True


class _ClientGoneError(Exception):
    """The client left before its request was whole."""


async def _read_body(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise RequestRefusedError(413, f"the body is larger than {limit} bytes", "invalid_request_error")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _client_gone(receive: Receive) -> None:
    message: Message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()


async def send_error(send: Send, error: RequestRefusedError, headers: dict[bytes, bytes]) -> None:
    """Answer with an OpenAI-shaped error."""
    body = msgspec.json.encode(error.body())
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    await send({"type": "http.response.body", "body": body, "more_body": False})
