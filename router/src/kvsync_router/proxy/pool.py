"""Open connections to engines, by engine. An idle one is used again; the oldest are closed.

Addresses are checked as everywhere (`kvsync_indexer.addresses`). No proxy of the environment is used. An engine that
is cut off sends no sign that it is gone, so the kernel is told how long it may be silent.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from kvsync_indexer.addresses import guarded_socket
from kvsync_router.errors import UpstreamError
from kvsync_router.proxy.connection import EngineConnection

IDLE_S: Final = 4.0
"""How long a connection may be idle: less than the 5 s after which vLLM's server closes it."""
SILENT_S: Final = 15
"""How long an engine's host may leave bytes or keep-alive probes unacknowledged."""
_KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 5),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 2),
    ("TCP_USER_TIMEOUT", SILENT_S * 1000),
)


class ConnectionPool:
    """Connections to all engines."""

    def __init__(self, connect_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._idle: dict[str, deque[tuple[float, EngineConnection]]] = {}
        self._tls: ssl.SSLContext | None = None

    def reusable(self, url: str) -> EngineConnection | None:
        """An idle connection to the engine at `url`, the one that was used last; None if there is none."""
        idle = self._idle.get(url)
        now = self._clock()
        while idle:
            since, connection = idle.pop()
            if connection.usable and now - since < IDLE_S:
                connection.reused = True
                return connection
            connection.close()
        return None

    def keep(self, url: str, connection: EngineConnection) -> None:
        """Take back a connection whose answer is complete. One that has been idle for too long is closed."""
        now = self._clock()
        idle = self._idle.setdefault(url, deque())
        idle.append((now, connection))
        while now - idle[0][0] >= IDLE_S or not idle[0][1].usable:
            idle.popleft()[1].close()

    async def connect(self, url: str) -> EngineConnection:
        """A new connection. Raises UpstreamError."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await self._connect(url)
        except TimeoutError as error:
            raise UpstreamError("no connection in time", down=True, cut_off=True) from error
        except (OSError, ValueError) as error:
            raise UpstreamError("connection refused", down=True) from error

    async def _connect(self, url: str) -> EngineConnection:
        loop = asyncio.get_running_loop()
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        failure: OSError = OSError("the name has no address")
        for info in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                opened = await _open(loop, info)
                break
            except OSError as error:
                failure = error
        else:
            raise failure
        tls: dict[str, Any] = {"ssl": self._tls_context(), "server_hostname": host} if secure else {}
        _, connection = await loop.create_connection(EngineConnection, sock=opened, **tls)
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for _, connection in idle:
                connection.close()
        self._idle.clear()


async def _open(loop: asyncio.AbstractEventLoop, info: tuple[Any, ...]) -> socket.socket:
    opened = guarded_socket(info)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        await loop.sock_connect(opened, info[4])
    except BaseException:
        opened.close()
        raise
    return opened
