"""The event loop of a command that runs until it is interrupted, and the HTTP client of such a command."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiohttp

from kvsync.errors import InterruptedRunError

Result = TypeVar("Result")


def client_session() -> aiohttp.ClientSession:
    """An HTTP client for load, without a limit on connections or on the duration of an answer."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
        read_bufsize=1 << 18,
    )


def run_interruptible(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`. SIGINT and SIGTERM cancel it, so that it can clean up, and raise InterruptedRunError here."""
    received: list[int] = []

    async def main() -> Result:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        return await task

    try:
        return asyncio.run(main())
    except BaseExceptionGroup as group:
        raise _first(group) from None
    except asyncio.CancelledError:
        raise InterruptedRunError(received[0] if received else signal.SIGINT) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure in a group, which may contain groups."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
