"""Serves one inference request: bytes in, bytes out, one outcome per request.

A request is placed, sent, and answered with the engine's own bytes as they arrive. Another endpoint can be tried until
the first byte of an answer's body has arrived. After that the answer is this engine's; if the engine dies, the client's
connection is cut, so that half an answer never looks complete. A client that leaves cancels its upstream request.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import structlog

from kvsync_indexer.serving import Receive, Scope, Send
from kvsync_router.decisions.paths import PROMPT_PATHS, RESPONSES_PATH, stored_response
from kvsync_router.decisions.picking import RoutingDecision
from kvsync_router.decisions.requests import InferenceRequest, opaque_request, parse_request
from kvsync_router.decisions.trace import TRACEPARENT, TRACESTATE, new_traceparent, trace_id
from kvsync_router.errors import ClientGoneError, RequestRefusedError, UpstreamError
from kvsync_router.proxy.access_log import Course, log_request
from kvsync_router.proxy.attempts import Attempts, Placed
from kvsync_router.proxy.exchange import Incoming, Reply, client_gone, incoming, read_body
from kvsync_router.proxy.protocol import ClientProtocol, connection_of
from kvsync_router.proxy.upstream import Patience, relay
from kvsync_router.routing import Routing

_log = structlog.get_logger("kvsync_router.proxy")

HEADER_ENDPOINT = b"x-kvsync-endpoint"
HEADER_MATCHED = b"x-kvsync-matched-tokens"
UNKNOWN = b"unknown"
"""The value of this header if nobody can tell how much of a prompt is cached."""
HEADER_POLICY = b"x-kvsync-policy"
HEADER_FALLBACK = b"x-kvsync-fallback"
HEADER_EXPLAIN = b"x-kvsync-explain"


class Proxy:
    """ASGI application for the paths of engines."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._config = routing.config
        self._metrics = routing.metrics
        self._attempts = Attempts(routing)
        self._in_flight = 0
        self._queued = 0
        self._rng = random.Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, unless the client leaves first."""
        given, reply = incoming(scope), Reply(send)
        course = Course(self._routing.clock())
        trace = self._continue_trace(given)
        self._in_flight += 1
        try:
            outcome = await self._handle(given, receive, connection_of(scope), reply, course)
        finally:
            self._in_flight -= 1
        policy = self._config.policy if course.decision is None else course.decision.policy.name
        self._metrics.requests.labels(policy, outcome).inc()
        if self._config.access_log:
            log_request(
                course,
                self._routing.clock(),
                method=given.method,
                path=given.path,
                status=reply.status,
                outcome=outcome,
                trace_id=trace,
            )

    def close(self) -> None:
        """Close the connections to engines that are idle."""
        self._attempts.pool.close()

    def _continue_trace(self, given: Incoming) -> str | None:
        """The id of the request's trace. A request without a valid one begins a trace, without a state."""
        trace = None
        for name, value in given.headers:
            if name == TRACEPARENT:
                trace = trace_id(value)
        if trace is None:
            parent = new_traceparent(self._rng)
            kept = [(name, value) for name, value in given.headers if name not in (TRACEPARENT, TRACESTATE)]
            given.headers = [*kept, (TRACEPARENT, parent)]
            trace = trace_id(parent)
        return trace

    async def _handle(
        self, given: Incoming, receive: Receive, connection: ClientProtocol | None, reply: Reply, course: Course
    ) -> str:
        """Serve one request and return its outcome."""
        try:
            self._admit()
            given.body = await read_body(receive, self._config.max_body_bytes)
            request = _parse(given)
        except RequestRefusedError as error:
            await reply.refuse(error, [(HEADER_POLICY, self._config.policy.encode())])
            return "refused"
        except ClientGoneError:
            return "disconnected"
        serving = self._serve(given, request, reply, course)
        try:
            if connection is None:
                return await _unless_gone(serving, receive)
            return await _unless_lost(serving, connection)
        except ClientGoneError:
            return "disconnected"
        except Exception as error:  # noqa: BLE001  an unforeseen error has an outcome like any other
            return await self._failed_inside(error, reply)

    def _admit(self) -> None:
        limits = self._config
        if self._in_flight > limits.max_requests or (limits.max_queued and self._queued >= limits.max_queued):
            raise RequestRefusedError(
                429, "the router is full", "rate_limit_error", code="429", retry_after_s=limits.retry_after_s
            )

    async def _failed_inside(self, error: Exception, reply: Reply) -> str:
        """A request that ends with an unforeseen exception has an outcome and a line in the log like any other."""
        _log.error("request_failed", problem=f"{type(error).__name__}: {error}", exc_info=error)
        if not reply.begun:
            refused = RequestRefusedError(502, "the request could not be sent to an engine", "bad_gateway", code="502")
            await reply.refuse(refused, [(HEADER_POLICY, self._config.policy.encode())])
        return "failed"

    async def _serve(self, given: Incoming, request: InferenceRequest, reply: Reply, course: Course) -> str:
        clock = self._routing.clock
        began_at = clock()
        self._queued += 1
        try:
            await self._routing.learn_model(request.model, given.header("authorization"))
            hints = self._routing.hints(request, given.header)
            course.decision = decision = await self._routing.decide(request, hints, began_at)
            placed = await self._attempts.place(given, request, decision, course)
        except RequestRefusedError as error:
            await reply.refuse(error, _decision_headers(given, course.decision))
            return "refused" if error.status in (404, 429) else "failed"
        finally:
            self._queued -= 1
        course.first_byte_at = clock()
        self._metrics.first_byte_seconds.observe(course.first_byte_at - began_at)
        self._metrics.prompt_tokens.inc(decision.prompt_tokens)
        self._metrics.matched_tokens.inc(placed.matched_tokens)
        if given.path == RESPONSES_PATH and placed.upstream.status == 200:
            self._routing.responses.learn(placed.upstream.first, placed.endpoint.info.name)
        return await self._answer(given, request, decision, placed, reply)

    async def _answer(
        self, given: Incoming, request: InferenceRequest, decision: RoutingDecision, placed: Placed, reply: Reply
    ) -> str:
        """Pass on an answer that has begun, and return the outcome."""
        upstream, ticket = placed.upstream, placed.ticket
        try:
            ticket.prefilled()
            watch = self._routing.watch(request, decision, placed.endpoint, upstream.status, upstream.content_type)
            patience = Patience(placed.endpoint, self._config.idle_timeout_s, self._config.left_idle_timeout_s)
            headers = [*_answer_headers(decision, placed), *_decision_headers(given, decision)]
            await relay(upstream, headers, reply, watch, patience)
        except UpstreamError as error:
            _log.warning("answer_cut_short", endpoint=placed.endpoint.info.name, reason=error.reason)
            return "cut"
        finally:
            ticket.finish()
            upstream.close()
        if watch is not None:
            watch.done()
        return "ok"


async def _unless_lost(serving: Coroutine[Any, Any, str], connection: ClientProtocol) -> str:
    """Serve in this task, and cancel it when the client leaves. Raises ClientGoneError then."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        task.cancel()

    connection.leaving.add(leave)
    try:
        return await serving
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGoneError("the client left before its answer was complete") from None
    finally:
        connection.leaving.discard(leave)


async def _unless_gone(serving: Coroutine[Any, Any, str], receive: Receive) -> str:
    """The same for any ASGI server, which tells that a client has left only to a task that waits for it."""
    tasks = [asyncio.create_task(serving), asyncio.create_task(client_gone(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return str(tasks[0].result())
        raise ClientGoneError("the client left before its answer was complete")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _parse(given: Incoming) -> InferenceRequest:
    api = PROMPT_PATHS.get(given.path)
    if api is not None:
        return parse_request(given.body, api=api)
    return opaque_request(given.body, given.header("content-type") or "", response=stored_response(given.path))


def _answer_headers(decision: RoutingDecision, placed: Placed) -> list[tuple[bytes, bytes]]:
    """The headers that say where an answer came from."""
    headers = [
        (HEADER_ENDPOINT, placed.endpoint.info.name.encode()),
        (HEADER_MATCHED, str(placed.matched_tokens).encode() if decision.unknown is None else UNKNOWN),
    ]
    if decision.fallback is not None:
        headers.append((HEADER_FALLBACK, b"index-away"))
    return headers


def _decision_headers(given: Incoming, decision: RoutingDecision | None) -> list[tuple[bytes, bytes]]:
    """The headers that say how a request was placed, with the reasons if it asks for them."""
    if decision is None:
        return []
    headers = [(HEADER_POLICY, decision.policy.name.encode())]
    if given.header("x-kvsync-explain") == "1":
        headers.append((HEADER_EXPLAIN, decision.record.explanation()))
    return headers
