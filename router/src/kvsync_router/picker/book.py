"""The addresses of endpoints. A gateway needs IP addresses, while the URL of an engine may contain a host name.

Addresses are looked up in the background, so that no request waits for a name server.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import structlog

from kvsync_indexer.addresses import forbidden
from kvsync_router.decisions.endpoints import Endpoint
from kvsync_router.decisions.subset import host_and_port, join_address, split_address

REFRESH_S: Final = 1.0
"""How often new names are looked up."""
LOOKUP_S: Final = 5.0
"""How long one look-up may take."""
RENEW_ROUNDS: Final = 10
"""Rounds after which known names are looked up again."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[str]]

_log = structlog.get_logger("kvsync_router.picker")


async def resolve(host: str, port: int) -> str:
    """The first IPv4 address of a name, or its first IPv6 address. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    return str(found[0][4][0])


class AddressBook:
    """The address of each endpoint, as far as it is known."""

    def __init__(self, endpoints: Callable[[], Iterable[Endpoint]], resolver: Resolve = resolve) -> None:
        self._endpoints = endpoints
        self._resolver = resolver
        self._known: dict[str, str | None] = {}
        self._names: dict[str, tuple[str, int]] = {}
        self._rounds = 0
        self._task: asyncio.Task[None] | None = None

    def address(self, endpoint: Endpoint) -> str | None:
        """`ip:port` of the endpoint, or None while it has none that a gateway may be sent to."""
        url = endpoint.info.url
        try:
            return self._known[url]
        except KeyError:
            self._known[url] = self._literal(url)
            return self._known[url]

    def _literal(self, url: str) -> str | None:
        found = host_and_port(url)
        if found is None:
            return None
        host, port = found
        if split_address(host) is None:
            self._names[url] = found
            return None
        return None if forbidden(host) else join_address(host, port)

    async def start(self) -> None:
        """Look up every name once, then again from time to time."""
        await self.refresh()
        self._task = asyncio.create_task(self._keep(), name="address-book")

    async def stop(self) -> None:
        """End the look-ups."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Look up new names, and in some rounds all of them. Endpoints that are gone are forgotten."""
        urls = {endpoint.info.url for endpoint in self._endpoints()}
        for gone in self._known.keys() - urls:
            self._known.pop(gone, None)
            self._names.pop(gone, None)
        for endpoint in self._endpoints():
            self.address(endpoint)
        due = self._rounds % RENEW_ROUNDS == 0
        self._rounds += 1
        asked = [(url, *found) for url, found in self._names.items() if due or self._known.get(url) is None]
        await asyncio.gather(*(self._look_up(url, host, port) for url, host, port in asked))

    async def _look_up(self, url: str, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(LOOKUP_S):
                address = await self._resolver(host, port)
        except (OSError, TimeoutError, UnicodeError) as error:
            _log.debug("address_not_found", host=host, problem=str(error))
            return  # the last known address stays
        if url in self._names:
            self._known[url] = None if forbidden(address) else join_address(address, port)
