"""Tries endpoints until one of them begins to answer."""

from dataclasses import dataclass

import structlog

from kvsync_router.decisions.endpoints import Endpoint, Ticket
from kvsync_router.decisions.picking import RoutingDecision, nobody_answers
from kvsync_router.decisions.requests import InferenceRequest, output_wait_tokens
from kvsync_router.errors import UpstreamError
from kvsync_router.proxy.access_log import Course
from kvsync_router.proxy.exchange import Incoming
from kvsync_router.proxy.pool import ConnectionPool
from kvsync_router.proxy.upstream import Upstream, UpstreamClient
from kvsync_router.routing import Routing

_log = structlog.get_logger("kvsync_router.proxy")


@dataclass(slots=True)
class Placed:
    """A request whose answer has begun."""

    endpoint: Endpoint
    ticket: Ticket
    matched_tokens: int
    upstream: Upstream


class Attempts:
    """Places requests on the endpoints of a routing."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._config = routing.config
        self.pool = ConnectionPool(routing.config.connect_timeout_s)
        self._upstreams = UpstreamClient(self.pool)

    async def place(
        self, incoming: Incoming, request: InferenceRequest, decision: RoutingDecision, course: Course
    ) -> Placed:
        """Try endpoints until one begins to answer. Raises RequestRefusedError if none does."""
        table, model = self._routing.table, request.model
        self._routing.picker.check_model(model)
        tried: list[str] = []
        last = f"no endpoint {'of the subset ' if decision.hints.subset is not None else ''}is in the rotation"
        for attempt in range(self._config.attempts):
            picked = self._routing.picker.pick(decision, model, tried)
            if picked is None:
                break
            endpoint, matched = picked
            course.attempts = attempt + 1
            ticket = table.reserve(endpoint, model, decision.prompt_tokens, matched, request.output_tokens)
            try:
                upstream = await self._begin(incoming, request, endpoint, final=attempt + 1 == self._config.attempts)
            except UpstreamError as error:
                ticket.finish()
                self._failed(decision, endpoint, error)
                tried.append(endpoint.info.name)
                last = f"{endpoint.info.name}: {error.reason}"
                continue
            except BaseException:
                ticket.finish()
                raise
            if table.answered(endpoint, upstream.status):
                _log.warning("endpoint_circuit_opened", endpoint=endpoint.info.name, reason="its last answer")
            return Placed(endpoint, ticket, matched, upstream)
        raise nobody_answers(last, tried=bool(tried))

    async def _begin(
        self, incoming: Incoming, request: InferenceRequest, endpoint: Endpoint, *, final: bool
    ) -> Upstream:
        body = self._routing.reports.body_for(endpoint.info.name, request, incoming.body)
        timeout_s = self._config.first_byte_timeout_s + self._config.output_token_s * output_wait_tokens(request)
        return await self._upstreams.begin(incoming, body, endpoint, timeout_s=timeout_s, final=final)

    def _failed(self, decision: RoutingDecision, endpoint: Endpoint, error: UpstreamError) -> None:
        self._routing.picker.failed(decision, endpoint, error.reason)
        self._routing.metrics.retries.labels("refused" if error.down else "failed").inc()
        if error.down:
            self._routing.table.mark_down(endpoint, cut_off=error.cut_off)
            _log.warning("endpoint_left_rotation", endpoint=endpoint.info.name, reason=error.reason)
        elif error.busy:
            endpoint.failures += 1
        elif self._routing.table.failed(endpoint):
            _log.warning("endpoint_circuit_opened", endpoint=endpoint.info.name, reason=error.reason)
