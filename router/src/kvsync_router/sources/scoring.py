"""Scorers: the index's answer to "who holds how much?", over HTTP or in the same process.

A question that the index refuses (it cannot be tokenized, say) matches nothing. An index that does not answer raises
ScorerUnavailableError, and the decision falls back to load at once.
"""

import asyncio
from collections.abc import Callable

import aiohttp
import msgspec

from kvsync_indexer.api import MatchAnswer, MatchRequest
from kvsync_indexer.errors import RequestError
from kvsync_indexer.fronts import IndexAnswers
from kvsync_router.decisions.scoring import Score, score_of
from kvsync_router.errors import ScorerUnavailableError

REFUSED = "the index refuses the question"
_FAILURES = (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError, RecursionError)


class HttpScorer:
    """Asks an index over HTTP, with a short time-out, and leaves it alone for `backoff_s` after a failure."""

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
        self._text_away_until = float("-inf")
        self._decoder = msgspec.json.Decoder(MatchAnswer)

    async def score(self, request: MatchRequest) -> Score:
        """Ask `POST /v1/match`."""
        now = self._clock()
        if now < self._away_until or (request.token_ids is None and now < self._text_away_until):
            raise ScorerUnavailableError("the index failed a moment ago")
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._post(msgspec.json.encode(request))
            if 400 <= status < 500:
                return Score(unknown=REFUSED)
            if status != 200:  # the index works, but cannot answer this question: no engine could tokenize it, say
                raise ScorerUnavailableError(f"the index answered {status}")
            return score_of(self._decoder.decode(body))
        except _FAILURES as error:
            until = self._clock() + self._backoff_s
            if isinstance(error, TimeoutError) and request.token_ids is None:
                self._text_away_until = until  # an engine that tokenizes slowly says nothing about other questions
            else:
                self._away_until = until
            raise ScorerUnavailableError(f"{type(error).__name__}: {error}") from error

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"}
        async with self._session().post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, await response.read()


class InProcessScorer:
    """Asks the index in whose process the router runs, with the same time-out as over HTTP."""

    def __init__(self, index: IndexAnswers, timeout_s: float = 0.25) -> None:
        self._index = index
        self._timeout_s = timeout_s

    async def score(self, request: MatchRequest) -> Score:
        """Ask the index. Whatever it raises, the request still finds an endpoint."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return score_of(await self._index.match(request))
        except RequestError:
            return Score(unknown=REFUSED)
        except Exception as error:
            raise ScorerUnavailableError(f"{type(error).__name__}: {error}") from error


class NoScorer:
    """For a router without an index."""

    async def score(self, request: MatchRequest) -> Score:  # noqa: ARG002
        """Raise ScorerUnavailableError."""
        raise ScorerUnavailableError("there is no index")
