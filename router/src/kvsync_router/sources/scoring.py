"""Scorers: the index's answer to "who holds how much?", over HTTP or in the same process.

A question that the index refuses (it cannot be tokenized, say) matches nothing. An index that does not answer raises
ScorerUnavailableError, and the decision falls back to load at once.
"""

import asyncio
from collections.abc import Callable

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.client import (
    AsyncIndexClient,
    IndexClientError,
    IndexFailedError,
    IndexRefusedError,
    IndexTimeoutError,
)
from kvsync_indexer.errors import RequestError
from kvsync_indexer.fronts import IndexAnswers
from kvsync_router.decisions.scoring import Score, score_of
from kvsync_router.errors import ScorerUnavailableError

REFUSED = "the index refuses the question"


class HttpScorer:
    """Asks an index over HTTP, with a short time-out, and leaves it alone for `backoff_s` after a failure."""

    def __init__(
        self,
        index: AsyncIndexClient,
        clock: Callable[[], float],
        backoff_s: float,
    ) -> None:
        self._index = index
        self._clock = clock
        self._backoff_s = backoff_s
        self._away_until = float("-inf")
        self._text_away_until = float("-inf")

    async def score(self, request: MatchRequest) -> Score:
        """Ask `POST /v1/match`."""
        now = self._clock()
        if now < self._away_until or (request.token_ids is None and now < self._text_away_until):
            raise ScorerUnavailableError("the index failed a moment ago")
        try:
            return score_of(await self._index.match(request))
        except IndexRefusedError:
            return Score(unknown=REFUSED)
        except IndexFailedError as error:  # the index works, but no tokenizer could turn this text into tokens, say
            raise ScorerUnavailableError(f"the index answered {error.status}") from None
        except IndexClientError as error:
            until = self._clock() + self._backoff_s
            if isinstance(error, IndexTimeoutError) and request.token_ids is None:
                self._text_away_until = until  # a slow tokenizer says nothing about other questions
            else:
                self._away_until = until
            raise ScorerUnavailableError(str(error)) from error


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
