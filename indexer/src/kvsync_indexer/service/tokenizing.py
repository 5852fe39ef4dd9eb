"""Text to tokens, through the `/tokenize` endpoint of an engine, which knows its tokenizer and its chat template.

Every publisher of the model with an `http_url` can be asked, and the publishers take turns. Answers are not cached,
because the same prompt is rarely asked about twice.
"""

import asyncio
from collections.abc import Sequence

import aiohttp
import msgspec

from kvsync_indexer.errors import RequestError, TokenizeError
from kvsync_indexer.ingest import PublisherLink

TIMEOUT_S = 5.0
TRIES = 3


class _Answer(msgspec.Struct):
    tokens: list[int]


class Tokenizer:
    """Asks engines for tokens. Use it in one event loop, and `close` it there."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._decoder = msgspec.json.Decoder(_Answer)
        self._turn = 0

    async def tokens(self, model: str, body: dict[str, object], links: Sequence[PublisherLink]) -> list[int]:
        """Token ids of `{"prompt": ...}` or `{"messages": ...}`.

        Raises RequestError if no engine of the model can be asked or an engine refuses the text, and TokenizeError if
        none of the engines answers.
        """
        urls = sorted({link.spec.http_url for link in links if link.spec.http_url and link.machine.trusted})
        urls = urls or sorted({link.spec.http_url for link in links if link.spec.http_url})
        if not urls:
            raise RequestError(
                422,
                f"no publisher of model {model!r} has an http_url to tokenize with; send token_ids",
                field="model",
            )
        self._turn += 1
        problem = ""
        for attempt in range(min(TRIES, len(urls))):
            url = urls[(self._turn + attempt) % len(urls)]
            try:
                return await self._ask(url, {"model": model, **body})
            except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
                problem = f"{url}/tokenize: {type(error).__name__}: {error}"
        raise TokenizeError(problem)

    async def _ask(self, url: str, body: dict[str, object]) -> list[int]:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=30.0))
        headers = {"content-type": "application/json"}
        async with (
            asyncio.timeout(TIMEOUT_S),
            self._session.post(f"{url}/tokenize", data=msgspec.json.encode(body), headers=headers) as response,
        ):
            data = await response.read()
            if 400 <= response.status < 500:
                raise RequestError(422, f"{url}/tokenize refused the text: {data[:300].decode(errors='replace')}")
            response.raise_for_status()
            return self._decoder.decode(data).tokens

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
