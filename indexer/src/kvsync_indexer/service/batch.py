"""`POST /v1/match` with several queries.

Each query is read and answered on its own, so that one that is wrong costs the others nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from kvsync_indexer.api import MOST_QUERIES, BatchMatchAnswer, BatchMatchResult, ErrorDetail, MatchAnswer, MatchRequest
from kvsync_indexer.errors import RequestError, TokenizeError
from kvsync_indexer.service.requests import decode_request

AT_ONCE: Final = 8
"""Queries of one batch that are answered at the same time: they may wait for a tokenizer."""
_FIELD: Final = b'"queries"'


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    queries: list[msgspec.Raw]


class _Peek(msgspec.Struct):
    queries: msgspec.Raw = msgspec.Raw()


def queries_in(body: bytes) -> list[bytes] | None:
    """The queries of a batch; None if the body is a single query or none at all. Raises RequestError."""
    if _FIELD not in body:
        return None
    try:
        if not bytes(msgspec.json.decode(body, type=_Peek).queries):
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    queries = decode_request(body, _Batch).queries
    if not 0 < len(queries) <= MOST_QUERIES:
        raise RequestError(422, f"queries: {len(queries)} of them; must be 1 to {MOST_QUERIES}", field="queries")
    return [bytes(query) for query in queries]


async def answer_batch(
    answer: Callable[[MatchRequest], Awaitable[MatchAnswer]], queries: list[bytes]
) -> BatchMatchAnswer:
    """One result per query, in their order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(query: bytes) -> BatchMatchResult:
        async with gate:
            await asyncio.sleep(0)  # other requests have their turn between two queries
            return await _result(answer, query)

    return BatchMatchAnswer(list(await asyncio.gather(*map(one, queries))))


async def _result(answer: Callable[[MatchRequest], Awaitable[MatchAnswer]], query: bytes) -> BatchMatchResult:
    try:
        found = await answer(decode_request(query, MatchRequest))
    except RequestError as error:
        return BatchMatchResult(0, 0, [], status=error.status, error=ErrorDetail(str(error), error.field))
    except TokenizeError as error:
        return BatchMatchResult(0, 0, [], status=503, error=ErrorDetail(str(error)))
    return BatchMatchResult(
        found.block_size, found.query_blocks, found.matches, unknown=found.unknown, skips_cache=found.skips_cache
    )
