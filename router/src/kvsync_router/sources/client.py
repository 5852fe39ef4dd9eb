"""The router's HTTP connection pool for engines and index, which is opened and closed with the router."""

import aiohttp

from kvsync_indexer.addresses import guarded_connector

READ_BUFFER_BYTES = 1 << 18
CONNECT_TIMEOUT_S = 2.0


class HttpClient:
    """A session that can be passed on before it is open. Calling the object returns the open session."""

    def __init__(self, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None

    def __call__(self) -> aiohttp.ClientSession:
        """The open session. Raises RuntimeError before `start` and after `stop`."""
        if self._session is None:
            raise RuntimeError("the router is not running")
        return self._session

    async def start(self) -> None:
        """Open the pool. It has no total time-out, because an answer may stream for hours."""
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )

    async def stop(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None
