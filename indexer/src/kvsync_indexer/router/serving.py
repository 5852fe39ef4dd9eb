"""Runs an ASGI application on a socket, with structured logs and a quiet server."""

import logging
import socket
import sys

import structlog
import uvicorn
from starlette.types import ASGIApp

from kvsync_indexer.router.errors import RouterConfigError

BACKLOG = 2048
GRACE_S = 5


def configure_logs() -> None:
    """Key-value logs: JSON unless stderr is a terminal."""
    tty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if tty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


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


def serve(app: ASGIApp, bound: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; answers in flight get a few seconds."""
    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    structlog.get_logger(__name__).info("router ready", address=":".join(str(part) for part in bound.getsockname()[:2]))
    uvicorn.Server(config).run(sockets=[bound])
