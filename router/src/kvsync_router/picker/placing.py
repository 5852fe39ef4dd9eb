"""Places a request on the endpoints of a routing, and accounts for what becomes of it.

No rule about where a request goes is made here. This module reads the request as the proxy does, restricts the choice
to endpoints that the gateway can reach, and turns the choice into addresses.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from kvsync_indexer.api import FirstPrompt
from kvsync_router.decisions.endpoints import Endpoint, Ticket, candidate
from kvsync_router.decisions.paths import OTHER_PATHS, PROMPT_PATHS, RESPONSES_PATH, Api, stored_response
from kvsync_router.decisions.picking import RoutingDecision, nobody_answers
from kvsync_router.decisions.policies import Candidate
from kvsync_router.decisions.predictions import AnswerWatch
from kvsync_router.decisions.requests import CHARACTERS_PER_TOKEN, InferenceRequest, opaque_request, parse_request
from kvsync_router.decisions.subset import Subset
from kvsync_router.errors import RequestRefusedError
from kvsync_router.picker.exchange import Question
from kvsync_router.proxy.proxy import (
    HEADER_ENDPOINT,
    HEADER_EXPLAIN,
    HEADER_FALLBACK,
    HEADER_MATCHED,
    HEADER_POLICY,
    UNKNOWN,
)
from kvsync_router.routing import Routing

RANK_HEADER: Final = "x-data-parallel-rank"
NOT_READ: Final = "the body cannot be read"

_log = structlog.get_logger("kvsync_router.picker")


class Placer:
    """Places the requests of all streams."""

    def __init__(self, routing: Routing, address: Callable[[Endpoint], str | None], *, single_address: bool) -> None:
        """`address` gives `ip:port` of an endpoint. With `single_address`, an answer has no fall-backs."""
        self.routing = routing
        self.in_flight = 0
        self.queued = 0
        """Of these, requests whose answer has not begun."""
        self._address = address
        self._most_addresses = 1 if single_address else routing.config.attempts

    async def place(self, question: Question) -> "Placed":
        """Choose endpoints. Raises RequestRefusedError with what the client is told if there is none."""
        limits = self.routing.config
        if self.in_flight >= limits.max_requests or (limits.max_queued and self.queued >= limits.max_queued):
            raise RequestRefusedError(
                429, "the router is full", "rate_limit_error", code="429", retry_after_s=limits.retry_after_s
            )
        self.in_flight += 1
        self.queued += 1
        try:
            return await self._place(question)
        except BaseException:
            self.in_flight -= 1
            self.queued -= 1
            raise

    async def _place(self, question: Question) -> "Placed":
        routing, begun = self.routing, self.routing.clock()
        request = _read(question)
        model = request.model
        await routing.learn_model(model, question.headers.get("authorization"))
        subset = self._reachable(question.subset)
        hints = replace(routing.hints(request, question.headers.get), subset=subset)
        decision = await routing.decide(request, hints, begun)
        routing.picker.check_model(model)
        picked = routing.picker.pick(decision, model)
        if picked is None:
            which = "no endpoint" if question.subset is None else "no endpoint of the gateway's subset"
            raise nobody_answers(f"{which} is in the rotation", tried=False)
        listed = [picked[0], *self._fall_backs(decision, model, picked[0], subset)]
        addresses = {str(self._address(endpoint)): endpoint for endpoint in listed}
        return Placed(self, question, request, decision, addresses)

    def _reachable(self, hint: list[str] | None) -> frozenset[str]:
        """The names of the endpoints that have an address, and that the gateway permits."""
        permitted = None if hint is None else Subset(hint)
        known = [(endpoint.info.name, self._address(endpoint)) for endpoint in self.routing.table.all()]
        return frozenset(
            name for name, address in known if address is not None and (permitted is None or permitted.permits(address))
        )

    def _fall_backs(
        self, decision: RoutingDecision, model: str | None, chosen: Endpoint, subset: frozenset[str]
    ) -> list[Endpoint]:
        """Endpoints that the gateway may try by itself, best first, each with an address of its own.

        The request is the same for all of them, so they must take the same rank.
        """
        seen = {self._address(chosen)}
        others = [
            (candidate(endpoint, decision.matched_tokens.get(endpoint.info.name, 0)), endpoint)
            for endpoint in self.routing.table.rotation(model, (chosen.info.name,), subset)
            if endpoint.info.rank == chosen.info.rank
        ]
        others.sort(key=lambda each: _cost(decision, each[0]))
        found: list[Endpoint] = []
        for _, endpoint in others:
            if len(found) + 1 < self._most_addresses and self._address(endpoint) not in seen:
                seen.add(self._address(endpoint))
                found.append(endpoint)
        return found


def _cost(decision: RoutingDecision, each: Candidate) -> tuple[float, int, int, str]:
    return decision.policy.score(decision.prompt_tokens, each) or 0.0, each.requests, each.assigned_tokens, each.name


def _read(question: Question) -> InferenceRequest:
    """The request as the proxy reads it. One that cannot be read has no model and no prompt, so load decides."""
    path = question.path
    stored = stored_response(path)
    if question.body is None:
        tokens = question.body_bytes // CHARACTERS_PER_TOKEN
        return InferenceRequest(None, FirstPrompt(), tokens, unknown=NOT_READ, previous_response=stored)
    if stored is None and path not in OTHER_PATHS:
        try:
            return parse_request(question.body, api=_api_of(path))
        except RequestRefusedError as error:
            _log.debug("body_not_read", problem=str(error))
    return opaque_request(question.body, question.headers.get("content-type", ""), response=stored)


def _api_of(path: str) -> Api | None:
    """The form of a request. The route of a gateway may have a prefix that the engine does not get to see."""
    return next((api for known, api in PROMPT_PATHS.items() if path.endswith(known)), None)


class Placed:
    """A request that was placed: the exchange's `Placement`."""

    def __init__(
        self,
        placer: Placer,
        question: Question,
        request: InferenceRequest,
        decision: RoutingDecision,
        addresses: Mapping[str, Endpoint],
    ) -> None:
        """`addresses` are in the order in which the gateway tries them."""
        self.destination = ",".join(addresses)
        first = next(iter(addresses.values()))
        self.headers: dict[str, str] = {} if first.info.rank is None else {RANK_HEADER: str(first.info.rank)}
        self._placer = placer
        self._routing = placer.routing
        self._explains = question.headers.get(HEADER_EXPLAIN.decode()) == "1"
        self._stores = question.path == RESPONSES_PATH
        """The engine keeps its answer, and later requests may want it."""
        self._request = request
        self._decision = decision
        self._addresses = addresses
        self._endpoint = first
        self._watch: AnswerWatch | None = None
        self._outcome = "disconnected"
        self._queued = True
        self._placed_at = self._routing.clock()
        self._ticket: Ticket = self._reserve(first)

    def _reserve(self, endpoint: Endpoint) -> Ticket:
        decision, request = self._decision, self._request
        matched = decision.matched_tokens.get(endpoint.info.name, 0)
        table = self._routing.table
        return table.reserve(endpoint, request.model, decision.prompt_tokens, matched, request.output_tokens)

    def began(self, status: int, content_type: str, served: str | None) -> Mapping[str, str]:
        """The answer has begun. Its load moves to the endpoint that really serves."""
        self._outcome = "cut"
        self._move_to(served)
        endpoint, decision, metrics = self._endpoint, self._decision, self._routing.metrics
        if self._routing.table.answered(endpoint, status):
            _log.warning("endpoint_circuit_opened", endpoint=endpoint.info.name, reason=f"status {status}")
        matched = decision.matched_tokens.get(endpoint.info.name, 0)
        metrics.prompt_tokens.inc(decision.prompt_tokens)
        metrics.matched_tokens.inc(matched)
        self._watch = self._routing.watch(self._request, decision, endpoint, status, content_type)
        self._stores = self._stores and status == 200
        unknown = decision.unknown is not None or self._request.unknown is not None
        headers = {
            HEADER_ENDPOINT.decode(): endpoint.info.name,
            HEADER_MATCHED.decode(): UNKNOWN.decode() if unknown else str(matched),
            HEADER_POLICY.decode(): decision.policy.name,
        }
        if decision.fallback is not None:
            headers[HEADER_FALLBACK.decode()] = "index-away"
        if self._explains:
            headers[HEADER_EXPLAIN.decode()] = decision.record.explanation().decode()
        return headers

    def _move_to(self, served: str | None) -> None:
        """The endpoint at `served` answers. Those listed before it accepted no connection."""
        actual = self._addresses.get(served or "")
        if actual is None or actual is self._endpoint:
            return
        for endpoint in self._addresses.values():
            if endpoint is actual:
                break
            self._routing.metrics.retries.labels("refused").inc()
            self._routing.picker.failed(self._decision, endpoint, "the gateway went on to another")
            self._routing.table.mark_down(endpoint)
            _log.warning("endpoint_left_rotation", endpoint=endpoint.info.name, reason="the gateway went on to another")
        self._ticket.finish()
        self._endpoint = actual
        self._ticket = self._reserve(actual)

    def add(self, piece: bytes) -> None:
        """A piece of the answer has passed."""
        if not piece:
            return
        if self._outcome == "cut":
            self._outcome = "answering"
            self._answers()
            self._routing.metrics.first_byte_seconds.observe(self._routing.clock() - self._placed_at)
            if self._stores:
                self._routing.responses.learn(piece, self._endpoint.info.name)
        if self._watch is not None:
            self._watch.add(piece)

    def _answers(self) -> None:
        """The answer has begun, or will not begin any more."""
        self._ticket.prefilled()
        self._placer.queued -= self._queued
        self._queued = False

    def completed(self) -> None:
        """The whole answer has passed, so the usage in it can be compared with the prediction."""
        self._outcome = "ok"
        if self._watch is not None:
            self._watch.done()

    def ended(self) -> None:
        """The stream has ended."""
        self._answers()
        self._ticket.finish()
        self._placer.in_flight -= 1
        outcome = "cut" if self._outcome == "answering" else self._outcome
        self._routing.metrics.requests.labels(self._decision.policy.name, outcome).inc()
