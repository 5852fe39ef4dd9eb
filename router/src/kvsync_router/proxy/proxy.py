"""Serves one inference request: bytes in, bytes out, one outcome per request.

A request is placed, sent, and answered with the engine's own bytes as they arrive. Another endpoint can be tried until
the first byte of an answer's body has arrived. After that the answer is this engine's; if the engine dies, the client's
connection is cut, so that half an answer never looks complete. A client that leaves cancels its upstream request.
"""

import asyncio
from collections.abc import Awaitable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from kvsync_indexer.serving import Receive, Scope, Send
from kvsync_router.decisions.endpoints import Endpoint, Ticket
from kvsync_router.decisions.picking import RoutingDecision
from kvsync_router.decisions.requests import InferenceRequest, output_wait_tokens, parse_request
from kvsync_router.errors import ClientGoneError, RequestRefusedError, UpstreamError
from kvsync_router.proxy.upstream import FAILED_STATUSES, Patience, Upstream, UpstreamClient, relay
from kvsync_router.routing import Routing

_log = structlog.get_logger("kvsync_router.proxy")

CHAT_PATH = "/v1/chat/completions"
HEADER_ENDPOINT = b"x-kvsync-endpoint"
HEADER_MATCHED = b"x-kvsync-matched-tokens"
UNKNOWN = b"unknown"
"""The value of this header if nobody can tell how much of a prompt is cached."""
HEADER_POLICY = b"x-kvsync-policy"
HEADER_FALLBACK = b"x-kvsync-fallback"


@dataclass(slots=True)
class _Placed:
    """A request whose answer has begun."""

    endpoint: Endpoint
    ticket: Ticket
    matched_tokens: int
    upstream: Upstream


class _Answer:
    """`send` that knows whether the answer has begun."""

    __slots__ = ("_send", "begun")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    def __call__(self, message: MutableMapping[str, Any]) -> Awaitable[None]:
        self.begun = True
        return self._send(message)


class Proxy:
    """ASGI application for the OpenAI paths that generate text."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._config = routing.config
        self._metrics = routing.metrics
        self._upstreams = UpstreamClient(routing.client)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, unless the client leaves first."""
        policy = self._config.policy
        try:
            if self._in_flight >= self._config.max_requests:
                raise RequestRefusedError(429, "the router is full", "rate_limit_error")
            body = await _read_body(receive, self._config.max_body_bytes)
            request = parse_request(body, chat=scope["path"] == CHAT_PATH)
        except RequestRefusedError as error:
            self._count(policy, "refused")
            await send_error(send, error, {HEADER_POLICY: policy.encode()})
            return
        except ClientGoneError:
            self._count(policy, "disconnected")
            return
        self._in_flight += 1
        answer = _Answer(send)
        serving = asyncio.create_task(self._serve(scope, body, request, answer))
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
            self._count(policy, "disconnected")
        elif (unforeseen := serving.exception()) is not None:
            await self._failed_inside(unforeseen, answer)

    async def _failed_inside(self, error: BaseException, answer: "_Answer") -> None:
        """A request that ends with an unforeseen exception has an outcome and a line in the log like any other."""
        policy = self._config.policy
        _log.error("request_failed", problem=f"{type(error).__name__}: {error}", exc_info=error)
        self._count(policy, "failed")
        if not answer.begun:
            refused = RequestRefusedError(502, "the request could not be sent to an engine", "bad_gateway", code="502")
            await send_error(answer, refused, {HEADER_POLICY: policy.encode()})

    async def _serve(self, scope: Scope, body: bytes, request: InferenceRequest, send: Send) -> None:
        clock = self._routing.clock
        begun = clock()
        await self._learn_model(scope, request)
        decision = await self._routing.picker.decide(request)
        self._metrics.decision_seconds.observe(clock() - begun)
        if decision.fallback is not None:
            self._metrics.fallbacks.inc()
        policy = decision.policy.name
        try:
            placed = await self._place(scope, body, request, decision)
        except RequestRefusedError as error:
            self._count(policy, "refused" if error.status == 404 else "failed")
            await send_error(send, error, {HEADER_POLICY: policy.encode()})
            return
        self._metrics.first_byte_seconds.observe(clock() - begun)
        self._metrics.prompt_tokens.inc(decision.prompt_tokens)
        self._metrics.matched_tokens.inc(placed.matched_tokens)
        self._count(policy, await self._answer(request, decision, placed, send))

    async def _learn_model(self, scope: Scope, request: InferenceRequest) -> None:
        """A model that no endpoint is known to serve may be listed to the client, whose key the engines know."""
        if request.model is None or self._routing.table.knows_model(request.model):
            return
        key = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if key is not None:
            await self._routing.keeper.learn_models(request.model, key.decode("latin-1"))

    async def _answer(self, request: InferenceRequest, decision: RoutingDecision, placed: _Placed, send: Send) -> str:
        """Pass on an answer that has begun, and return the outcome."""
        upstream, ticket = placed.upstream, placed.ticket
        try:
            ticket.prefilled()
            watch = self._routing.watch(
                request, decision, placed.endpoint, upstream.response.status, upstream.content_type
            )
            patience = Patience(placed.endpoint, self._config.idle_timeout_s, self._config.left_idle_timeout_s)
            await relay(upstream, _headers(decision, placed), send, watch, patience)
        except UpstreamError as error:
            _log.warning("answer_cut_short", endpoint=placed.endpoint.info.name, reason=error.reason)
            return "cut"
        finally:
            ticket.finish()
            upstream.response.close()
        if watch is not None:
            watch.done()
        return "ok"

    async def _place(self, scope: Scope, body: bytes, request: InferenceRequest, decision: RoutingDecision) -> _Placed:
        """Try endpoints until one begins to answer. Raises RequestRefusedError if none does."""
        table, model = self._routing.table, request.model
        if len(table) and not table.knows_model(model):
            raise RequestRefusedError(
                404, f"The model `{model}` does not exist.", "NotFoundError", param="model", code="404"
            )
        longest = table.context_limit(model)
        prompt = min(decision.prompt_tokens, longest)
        tried: list[str] = []
        last = "no endpoint is in the rotation"
        timeout_s = self._config.first_byte_timeout_s + self._config.output_token_s * output_wait_tokens(request)
        for attempt in range(self._config.attempts):
            picked = self._routing.picker.pick(decision, model, tried)
            if picked is None:
                break
            endpoint, matched = picked
            ticket = Ticket(endpoint, max(prompt - matched, 0), min(prompt + request.output_tokens, longest))
            table.began(endpoint)
            final = attempt + 1 == self._config.attempts
            try:
                sent = self._routing.reports.body_for(endpoint.info.name, request, body)
                upstream = await self._upstreams.begin(scope, sent, endpoint, timeout_s=timeout_s, final=final)
            except UpstreamError as error:
                ticket.finish()
                self._failed(endpoint, error)
                tried.append(endpoint.info.name)
                last = f"{endpoint.info.name}: {error.reason}"
                continue
            except BaseException:
                ticket.finish()
                raise
            if upstream.response.status not in FAILED_STATUSES:
                endpoint.circuit.succeeded()
            elif table.failed(endpoint):
                _log.warning("endpoint_circuit_opened", endpoint=endpoint.info.name, reason="its last answer")
            return _Placed(endpoint, ticket, matched, upstream)
        status, kind = (502, "bad_gateway") if tried else (503, "service_unavailable")
        raise RequestRefusedError(status, f"no engine could answer ({last})", kind, code=str(status))

    def _failed(self, endpoint: Endpoint, error: UpstreamError) -> None:
        self._metrics.retries.labels("refused" if error.down else "failed").inc()
        if error.down:
            self._routing.table.mark_down(endpoint)
            _log.warning("endpoint_left_rotation", endpoint=endpoint.info.name, reason=error.reason)
        elif error.busy:
            endpoint.failures += 1
        elif self._routing.table.failed(endpoint):
            _log.warning("endpoint_circuit_opened", endpoint=endpoint.info.name, reason=error.reason)

    def _count(self, policy: str, outcome: str) -> None:
        self._metrics.requests.labels(policy, outcome).inc()


def _headers(decision: RoutingDecision, placed: _Placed) -> list[tuple[bytes, bytes]]:
    """The headers that say where an answer came from."""
    headers = [
        (HEADER_ENDPOINT, placed.endpoint.info.name.encode()),
        (HEADER_MATCHED, str(placed.matched_tokens).encode() if decision.unknown is None else UNKNOWN),
        (HEADER_POLICY, decision.policy.name.encode()),
    ]
    if decision.fallback is not None:
        headers.append((HEADER_FALLBACK, b"index-away"))
    return headers


async def _read_body(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client left before its request was complete")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise RequestRefusedError(413, f"the body is larger than {limit} bytes", "invalid_request_error")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _client_gone(receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()


async def send_error(send: Send, error: RequestRefusedError, headers: dict[bytes, bytes]) -> None:
    """Answer with an OpenAI-shaped error."""
    body = msgspec.json.encode(error.body())
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    await send({"type": "http.response.body", "body": body, "more_body": False})
