"""`POST /v1/match`: who holds how much of this prompt?

A raw ASGI endpoint with typed JSON on both sides: this is asked once for every request that is routed. With the native
core the usual query does not even come here (`quick`, `protocol`). Only publishers
in a trusted state are matched; the others of the model are listed with their state and 0.
"""

import difflib
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

import msgspec

from kvsync_indexer.core import Match, QueryError
from kvsync_indexer.errors import RequestError, TokenizeError
from kvsync_indexer.ingest import Ingest, PublisherLink
from kvsync_indexer.latency import LatencyHistogram
from kvsync_indexer.service.quick import QuickMatch
from kvsync_indexer.service.request import MatchRequest, context_of
from kvsync_indexer.service.tokenizing import Tokenizer
from kvsync_indexer.sync import State

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 << 20


class MatchRow(msgspec.Struct):
    """One publisher's share."""

    publisher: str
    pod: str
    rank: int
    matched_blocks: int
    matched_tokens: int
    tiers: dict[str, int]
    state: str
    age_s: float | None
    incomplete: bool


class MatchAnswer(msgspec.Struct):
    """`block_size` is that of the best match, or of the model's publishers, 0 while none is known."""

    block_size: int
    query_blocks: int
    matches: list[MatchRow]


class Matcher:
    """Answers match queries from the core and the publishers' states."""

    def __init__(self, ingest: Ingest, tokenizer: Tokenizer, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ingest = ingest
        self._tokenizer = tokenizer
        self._monotonic = monotonic

    async def answer(self, request: MatchRequest) -> MatchAnswer:
        """The answer. Raises RequestError, TokenizeError."""
        tokens = request.token_ids
        if tokens is None or request.prompt is not None or request.messages is not None:
            tokens = await self._tokens(request)
        try:
            return self._match(request, tokens)
        except QueryError as error:
            raise RequestError(422, str(error), field="token_ids") from None

    async def matched_tokens(self, request: MatchRequest) -> Mapping[str, int]:
        """Matched tokens by trusted publisher, 0 included, for a router in the same process."""
        answer = await self.answer(request)
        rows = (row for row in answer.matches if row.matched_tokens or row.state == State.LIVE)
        return {row.publisher: row.matched_tokens for row in rows}

    async def _tokens(self, request: MatchRequest) -> list[int]:
        given = [name for name in ("token_ids", "prompt", "messages") if getattr(request, name) is not None]
        if len(given) != 1:
            what = "none of them" if not given else " and ".join(given)
            raise RequestError(422, f"give exactly one of token_ids, prompt and messages, not {what}", field="prompt")
        body: dict[str, object] = {given[0]: getattr(request, given[0])}
        return await self._tokenizer.tokens(request.model, body, self._ingest.links_of(request.model))

    def _match(self, request: MatchRequest, tokens: Sequence[int]) -> MatchAnswer:
        ingest = self._ingest
        trusted = ingest.trusted.get(request.model, frozenset())
        if request.publishers is not None:
            trusted = trusted.intersection(request.publishers)
        matches = ingest.core.match(context_of(request), tokens, trusted) if trusted else ()
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
            if link is not None:  # else it left while the question was asked
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
    return MatchRow(spec.name, spec.pod, spec.rank, blocks, tokens, tiers, state, age, machine.incomplete)


class MatchEndpoint:
    """The ASGI side."""

    def __init__(self, matcher: Matcher, quick: QuickMatch | None = None) -> None:
        self._matcher = matcher
        self._quick = quick
        self._decoder = msgspec.json.Decoder(MatchRequest)
        self._encoder = msgspec.json.Encoder()
        self.seconds = LatencyHistogram()
        self.refused = 0

    def quick(self, body: bytes) -> bytes | None:
        """The answer where it needs no waiting and nothing is wrong; None: call the endpoint."""
        if self._quick is None:
            return None
        begun = time.perf_counter()
        data = self._quick.answer(body)
        if data is not None:
            self.seconds.observe(time.perf_counter() - begun)
        return data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; bad input is 4xx with one line that names the field."""
        begun = time.perf_counter()
        try:
            if scope["method"] != "POST":
                raise RequestError(405, f"method {scope['method']} is not allowed here; use POST")
            body = await _read_body(receive)
            status, data = 200, self._encoder.encode(await self._matcher.answer(self._decode(body)))
        except RequestError as error:
            self.refused += 1
            status, data = error.status, error_body(str(error), error.field)
        except TokenizeError as error:
            self.refused += 1
            status, data = 503, error_body(str(error), None)
        self.seconds.observe(time.perf_counter() - begun)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(data)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": data})

    def _decode(self, body: bytes) -> MatchRequest:
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise RequestError(422, decode_problem(error, MatchRequest)) from None
        except UnicodeDecodeError:
            raise RequestError(422, "the body is not UTF-8 JSON") from None


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise RequestError(413, f"the body is over {MAX_BODY_BYTES} bytes")
    return b"".join(parts)


def decode_problem(error: msgspec.MsgspecError, struct: type[msgspec.Struct]) -> str:
    """A msgspec error as one line; an unknown field gets the nearest valid name."""
    text = str(error)
    marker = "unknown field `"
    if marker in text:
        field = text.split(marker, 1)[1].split("`", 1)[0]
        names = struct.__struct_fields__
        near = difflib.get_close_matches(field, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(names)}"
        return f"unknown field {field!r} ({hint})"
    return text


def error_body(message: str, field: str | None) -> bytes:
    """The JSON of an error."""
    error = {"message": message} if field is None else {"message": message, "field": field}
    return msgspec.json.encode({"error": error})
