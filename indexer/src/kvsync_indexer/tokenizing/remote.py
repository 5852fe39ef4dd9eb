"""Text to tokens, through the `/tokenize` endpoint of an engine, which knows its tokenizer and its chat template.

Every publisher of the model with an `http_url` can be asked, and the publishers take turns. An engine that does not
answer soon is left alone for a while, and another one is asked at once, so that an engine which hangs costs one request
a tenth of a second and the others nothing. Answers are not cached, because the same prompt is rarely asked about twice.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import msgspec

from kvsync_indexer.addresses import guarded_connector
from kvsync_indexer.bounded import ENGINE_TOKENS, read_answer
from kvsync_indexer.errors import OversizeError, RequestError, TokenizeError
from kvsync_indexer.ingest import PublisherLink
from kvsync_indexer.tokenizing.tokenized import Tokenized
from kvsync_indexer.tokenizing.turns import EngineTurns, patience_s

TIMEOUT_S = 2.0
"""Longest time for one question, whichever engines are asked. A router gives up earlier."""
TRIES = 3
MAX_DETAIL = 200
_FAILURES = (
    TimeoutError,
    aiohttp.ClientError,
    OSError,
    msgspec.MsgspecError,
    UnicodeDecodeError,
    RecursionError,
    OversizeError,
)


class _Error(msgspec.Struct, frozen=True):
    message: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class RemoteTokenizer:
    """Asks engines for tokens. Use it in one event loop, and `close` it there."""

    def __init__(self, api_key: str | None, clock: Callable[[], float]) -> None:
        """`api_key` is for engines whose publisher has no key of its own."""
        self._api_key = api_key
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._decoder = msgspec.json.Decoder(Tokenized)
        self._turns = EngineTurns()

    async def tokens(self, model: str, body: dict[str, Any], links: Sequence[PublisherLink]) -> Tokenized:
        """Tokens of a body for `/tokenize`, to which the model is added.

        Raises RequestError if no engine of the model can be asked or an engine refuses the text, and TokenizeError if
        none of the engines answers in time.
        """
        keys = {url: link.spec.api_key for link in links if (url := link.spec.http_url) and link.machine.trusted}
        keys = keys or {url: link.spec.api_key for link in links if (url := link.spec.http_url)}
        if not keys:
            raise RequestError(
                422,
                f"no publisher of model {model!r} has an http_url to tokenize with; send token_ids",
                field="model",
            )
        try:
            data = msgspec.json.encode({"model": model, **body})
        except RecursionError:
            raise RequestError(422, "the request is nested too deeply") from None
        urls = self._turns.order(keys, self._clock())[:TRIES]
        if not urls:
            raise TokenizeError("every engine of the model was slow or failed a moment ago")
        return await self._first_answer(urls, keys, data)

    async def _first_answer(self, urls: list[str], keys: dict[str, str | None], data: bytes) -> Tokenized:
        """Ask one engine after the other, without forgetting those that were asked before."""
        asking: dict[asyncio.Task[Tokenized], str] = {}
        waiting = list(urls)
        patience, ends = patience_s(len(data)), self._clock() + TIMEOUT_S + patience_s(len(data))
        problem = "no answer in time"
        try:
            while waiting or asking:
                if waiting:
                    url = waiting.pop(0)
                    asking[asyncio.create_task(self._ask(url, keys[url] or self._api_key, data))] = url
                left = ends - self._clock()
                done, _ = await asyncio.wait(
                    asking, timeout=min(patience, left) if waiting else left, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    url = asking.pop(task)
                    error = task.exception()
                    if error is None or isinstance(error, RequestError):
                        self._turns.answered(url)
                        return task.result()
                    if not isinstance(error, _FAILURES):
                        raise error
                    self._turns.slow(url, self._clock())
                    problem = f"{url}/tokenize: {type(error).__name__}: {error}"[:MAX_DETAIL]
                if not done and not waiting:
                    break
            raise TokenizeError(problem)
        finally:
            for task in asking:
                task.cancel()

    async def _ask(self, url: str, api_key: str | None, data: bytes) -> Tokenized:
        """Ask one engine. It counts as slow from the moment when it has used up its time, answer or not."""
        loop = asyncio.get_running_loop()
        slow = loop.call_later(patience_s(len(data)), lambda: self._turns.slow(url, self._clock()))
        try:
            return await self._post(url, api_key, data)
        finally:
            slow.cancel()

    async def _post(self, url: str, api_key: str | None, data: bytes) -> Tokenized:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=guarded_connector(64))
        headers = {"content-type": "application/json"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        async with self._session.post(f"{url}/tokenize", data=data, headers=headers, allow_redirects=False) as response:
            answer = await read_answer(response, ENGINE_TOKENS)
            if 400 <= response.status < 500 and response.status not in (401, 403, 408, 429):
                raise RequestError(422, f"the engine refused the text: {_detail(answer, response.status)}")
            if response.status != 200:
                raise aiohttp.ClientError(f"status {response.status}")
            return self._decoder.decode(answer)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _detail(answer: bytes, status: int) -> str:
    """The engine's own message, if its error has the usual form. Nothing else of its answer reaches a client."""
    try:
        message = msgspec.json.decode(answer, type=_Refusal).error.message
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = ""
    return " ".join(message.split())[:MAX_DETAIL] or f"status {status}"
