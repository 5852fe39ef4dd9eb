"""Runs an ASGI application on a socket, with structured logs and a quiet server."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from kvsync_indexer.router.errors import RouterConfigError

BACKLOG = 2048
GRACE_S = 5


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; RouterConfigError says why there is none."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = infos[0]
        bound = socket.socket(family, kind, proto)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        raise RouterConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return bound


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process by the signal after a clean stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def serve(app: ASGIApp, bound: socket.socket) -> int:
    """Serve until SIGINT or SIGTERM; answers in flight get a few seconds. Returns the exit code."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        log_level="critical",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(_Server(config), bound))


async def _serve(server: _Server, bound: socket.socket) -> int:
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        server.should_exit = True
        server.force_exit = len(received) > 1

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    address = ":".join(str(part) for part in bound.getsockname()[:2])
    structlog.get_logger(__name__).info("router listens", address=address)
    await server.serve(sockets=[bound])
    return 130 if received[:1] == [signal.SIGINT] else 0
