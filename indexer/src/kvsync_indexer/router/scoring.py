"""Who holds how much of a prompt: the router's question to the index, in process or over HTTP.

The index tokenizes text itself (through an engine's /tokenize), so the router passes on whatever the client sent. A
scorer that cannot answer in time raises ScorerUnavailableError; the decision then falls back to load, at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
import msgspec

from kvsync_indexer.router.errors import ScorerUnavailableError

TRUSTED_STATES = frozenset({"live"})


@dataclass(frozen=True, slots=True)
class Query:
    """One prompt in its context; exactly one of `token_ids`, `prompt`, `messages` is set."""

    model: str
    lora: str | None = None
    cache_salt: str | None = None
    token_ids: Sequence[int] | None = None
    prompt: str | None = None
    messages: bytes | None = None

    def body(self) -> bytes:
        """The body of POST /v1/match."""
        fields: dict[str, object] = {"model": self.model}
        if self.lora is not None:
            fields["lora"] = self.lora
        if self.cache_salt is not None:
            fields["cache_salt"] = self.cache_salt
        if self.token_ids is not None:
            fields["token_ids"] = self.token_ids
        elif self.prompt is not None:
            fields["prompt"] = self.prompt
        elif self.messages is not None:
            fields["messages"] = msgspec.Raw(self.messages)
        return msgspec.json.encode(fields)


@dataclass(frozen=True, slots=True)
class Score:
    """Matched prefix tokens by publisher name, 0 included; publishers that are not trusted are absent."""

    matched_tokens: Mapping[str, int] = field(default_factory=dict)


class Scorer(Protocol):
    """Answers a Query."""

    async def score(self, query: Query) -> Score:
        """Who holds how much; ScorerUnavailableError when there is no answer to trust."""
        ...


class MatchRow(msgspec.Struct):
    """One entry of `matches` as /v1/match gives it."""

    publisher: str
    matched_tokens: int
    state: str = "live"


class MatchAnswer(msgspec.Struct):
    """The answer of /v1/match, as far as the router needs it."""

    matches: list[MatchRow]

    def score(self) -> Score:
        """Only what trusted publishers hold."""
        return Score({row.publisher: row.matched_tokens for row in self.matches if row.state in TRUSTED_STATES})


class HttpScorer:
    """Asks an index over HTTP, with a short timeout, and leaves it alone for a while after a failure."""

    def __init__(
        self,
        index_url: str,
        session: Callable[[], aiohttp.ClientSession],
        clock: Callable[[], float],
        timeout_s: float,
        backoff_s: float,
    ) -> None:
        self._url = f"{index_url.rstrip('/')}/v1/match"
        self._session = session
        self._clock = clock
        self._timeout_s = timeout_s
        self._backoff_s = backoff_s
        self._away_until = float("-inf")
        self._decoder = msgspec.json.Decoder(MatchAnswer)

    async def score(self, query: Query) -> Score:
        """POST /v1/match."""
        if self._clock() < self._away_until:
            msg = "the index failed a moment ago"
            raise ScorerUnavailableError(msg)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._post(query.body())
        except _NoAnswerError as error:
            raise ScorerUnavailableError(str(error)) from None
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            self._away_until = self._clock() + self._backoff_s
            raise ScorerUnavailableError(f"{type(error).__name__}: {error}") from error
        return answer.score() if answer is not None else Score()

    async def _post(self, body: bytes) -> MatchAnswer | None:
        """The answer, or None where the index refused this one question (4xx): no match, but not away."""
        headers = {"content-type": "application/json"}
        async with self._session().post(self._url, data=body, headers=headers) as response:
            if 400 <= response.status < 500:
                return None
            if response.status != 200:
                raise _NoAnswerError(f"the index answered {response.status}")
            return self._decoder.decode(await response.read())


class _NoAnswerError(Exception):
    """The index is there, but not for this question (an engine could not tokenize it, say)."""


class CallableScorer:
    """An index in this process, as a function of the query (sync work behind an awaitable)."""

    def __init__(self, match: Callable[[Query], Awaitable[Mapping[str, int]]]) -> None:
        self._match = match

    async def score(self, query: Query) -> Score:
        """Call the function; whatever it raises, the request must still find an endpoint."""
        try:
            return Score(await self._match(query))
        except Exception as error:
            raise ScorerUnavailableError(f"{type(error).__name__}: {error}") from error


class NoScorer:
    """For policies that do not ask."""

    async def score(self, query: Query) -> Score:  # noqa: ARG002
        """Never knows anything."""
        msg = "there is no index"
        raise ScorerUnavailableError(msg)
