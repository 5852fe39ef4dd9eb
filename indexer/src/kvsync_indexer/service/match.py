"""`POST /v1/match`: who holds how much of this prompt?

This is asked once for every request that is routed, so it is a plain ASGI endpoint without middleware, and with typed
JSON on both sides. With the native core, the usual query does not even get here: `quick` and `protocol` answer it. Only
publishers in a trusted state are matched. The others of the model are listed with their state and 0 matched blocks.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from kvsync_indexer import bounded
from kvsync_indexer.api import MatchAnswer, MatchRequest, MatchRow
from kvsync_indexer.api.prompts import skips_cache, unknown_part
from kvsync_indexer.bounded import read_request
from kvsync_indexer.core import Context, Match, QueryError
from kvsync_indexer.errors import RequestError, TokenizeError, UnknownPromptError
from kvsync_indexer.ingest import Ingest, PublisherLink
from kvsync_indexer.latency import LatencyHistogram
from kvsync_indexer.service.batch import answer_batch, queries_in
from kvsync_indexer.service.contexts import context_of
from kvsync_indexer.service.prompts import query_tokens
from kvsync_indexer.service.quick import QuickMatch
from kvsync_indexer.service.requests import decode_request, error_body
from kvsync_indexer.serving import Receive, Scope, Send
from kvsync_indexer.tokenizing import Tokenizers


class Matcher:
    """Answers match queries from the core and the publishers' states."""

    def __init__(self, ingest: Ingest, tokenizers: Tokenizers, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ingest = ingest
        self._tokenizers = tokenizers
        self._monotonic = monotonic

    async def answer(self, request: MatchRequest) -> MatchAnswer:
        """The answer. Raises RequestError, TokenizeError."""
        given = [name for name in ("token_ids", "prompt", "messages") if getattr(request, name) is not None]
        if len(given) != 1:
            what = "none of them" if not given else " and ".join(given)
            raise RequestError(422, f"give exactly one of token_ids, prompt and messages, not {what}", field="prompt")
        context = context_of(request)
        unknown = unknown_part(request.messages)
        if unknown is not None:
            return MatchAnswer(0, 0, [], unknown=unknown)
        if skips_cache(request, chat=request.messages is not None):
            trusted = self._ingest.trusted.get(request.model, frozenset())
            answer = self._rows(request, len(request.token_ids or ()), (), trusted)
            answer.skips_cache = True
            return answer
        try:
            tokens = await query_tokens(request, self._tokenizers, self._ingest.links_of(request.model))
        except UnknownPromptError as error:
            return MatchAnswer(0, 0, [], unknown=str(error))
        try:
            return self._match(request, context, tokens)
        except QueryError as error:
            raise RequestError(422, str(error), field="token_ids") from None

    def _match(self, request: MatchRequest, context: Context, tokens: Sequence[int]) -> MatchAnswer:
        ingest = self._ingest
        trusted = ingest.trusted.get(request.model, frozenset())
        if request.publishers is not None:
            trusted = trusted.intersection(request.publishers)
        matches = ingest.core.match(context, tokens, trusted) if trusted else ()
        return self._rows(request, len(tokens), matches, trusted)

    def _rows(
        self, request: MatchRequest, query_tokens: int, matches: Sequence[Match], trusted: frozenset[str]
    ) -> MatchAnswer:
        now = self._monotonic()
        links = {link.spec.name: link for link in self._ingest.links_of(request.model)}
        rows: list[MatchRow] = []
        size = matches[0].block_size if matches else 0
        for match in matches:
            link = links.pop(match.publisher, None)
            if link is not None:  # otherwise it was removed while the core was asked
                rows.append(_row(link, match.blocks, match.tokens, match.tiers, now))
        for name in sorted(links, key=lambda name: (name not in trusted, name)):
            if request.publishers is None or name in request.publishers:
                rows.append(_row(links[name], 0, 0, {}, now))
                size = size or links[name].totals.block_size or 0
        if request.limit is not None:
            del rows[max(0, request.limit) :]
        return MatchAnswer(size, query_tokens // size if size else 0, rows)


def _row(link: PublisherLink, blocks: int, tokens: int, tiers: dict[str, int], now: float) -> MatchRow:
    spec, machine = link.spec, link.machine
    heard = machine.last_alive
    age = None if heard is None else max(0.0, round(now - heard, 6))
    state = str(machine.state) if spec.ready else "not_ready"
    return MatchRow(spec.name, spec.pod, spec.rank, blocks, tokens, tiers, state, age, machine.incomplete, link.epoch)


class MatchEndpoint:
    """The ASGI endpoint, with its latency histogram."""

    def __init__(
        self, matcher: Matcher, quick: QuickMatch | None = None, seconds: LatencyHistogram | None = None
    ) -> None:
        self._matcher = matcher
        self._quick = quick
        self._encoder = msgspec.json.Encoder()
        self.seconds = seconds or LatencyHistogram()
        self.refused = 0

    def quick(self, body: bytes) -> bytes | None:
        """The answer if it can be given without waiting and the request is valid; None: call the endpoint."""
        if self._quick is None:
            return None
        begun = time.perf_counter()
        data = self._quick.answer(body)
        if data is not None:
            self.seconds.observe(time.perf_counter() - begun)
        return data

    async def _answer(self, body: bytes) -> bytes:
        queries = queries_in(body)
        if queries is None:
            return self._encoder.encode(await self._matcher.answer(decode_request(body, MatchRequest)))
        return self._encoder.encode(await answer_batch(self._matcher.answer, queries))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Bad input is answered with 4xx and one line that names the field."""
        begun = time.perf_counter()
        try:
            if scope["method"] != "POST":
                raise RequestError(405, f"method {scope['method']} is not allowed here; use POST")
            status, data = 200, await self._answer(await read_request(receive, bounded.MATCH_REQUEST))
        except RequestError as error:
            self.refused += 1
            status, data = error.status, error_body(str(error), error.field)
        except TokenizeError as error:
            self.refused += 1
            status, data = 503, error_body(str(error), None)
        self.seconds.observe(time.perf_counter() - begun)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        if status == 405:
            headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})
