"""What every server process of the index and the router needs: a listening socket, an HTTP server, an orderly end.

Several servers can share one event loop and end together, which is how a front runs inside the index's process.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import structlog
import uvicorn
import uvloop

from kvsync_indexer.descriptors import ReservingProtocol
from kvsync_indexer.errors import ConfigError, ListenError

_log = structlog.get_logger("kvsync_indexer.serving")

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

BACKLOG = 2048
"""Connections that the kernel queues for a listening socket."""
DRAIN_S = 5
"""Seconds that requests in flight get to finish when a server stops."""
RENEW_S = 10.0
"""How often the files of a certificate are checked for changes."""
INTERRUPTED = 130
"""Exit code after SIGINT."""


def listen(host: str, port: int) -> socket.socket:
    """Return a bound, listening socket. Raises ListenError."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = infos[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    bound.setblocking(False)
    return bound


class Server(Protocol):
    """A server that shares its event loop with others."""

    async def serve(self) -> None:
        """Serve until `stop` is called."""
        ...

    def stop(self, *, at_once: bool) -> None:
        """End `serve`: after the requests in flight, or without waiting for them."""
        ...


class _QuietUvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, for all of its servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class _NotCutAnswers(logging.Filter):
    """Drops uvicorn's error about an answer that its application left unfinished.

    The router leaves an answer unfinished on purpose when its engine breaks off, and logs that itself.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        return record.getMessage() != "ASGI callable returned without completing response."


_not_cut_answers = _NotCutAnswers()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for TLS."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    """Clients need a certificate that is signed by one of these, except for health, readiness and metrics."""

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises ConfigError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.load(context)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_OPTIONAL  # a probe has none; the protocol refuses other requests
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"--tls-cert {self.cert}: {error.strerror or error}") from None
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Use the certificate as it is in the files now. Raises OSError, ssl.SSLError."""
        context.load_cert_chain(self.cert, self.key, password=_no_password)

    def stamp(self) -> tuple[int, ...] | None:
        """What changes when the files are replaced; None while they cannot be read."""
        try:
            return tuple(path.stat().st_mtime_ns for path in (self.cert, self.key))
        except OSError:
            return None


def _no_password() -> str:
    raise OSError("the key has a password")


class HttpServer:
    """Serves an ASGI application on a listening socket, which it closes at the end.

    Requests are not logged; exceptions of the application are.
    """

    def __init__(
        self,
        app: AsgiApp,
        bound: socket.socket,
        *,
        lifespan: Literal["on", "off"] = "on",
        http: type[ReservingProtocol] = ReservingProtocol,
        tls: TlsFiles | None = None,
    ) -> None:
        """`http` may be a protocol class that answers some requests itself. Raises ConfigError for unusable `tls`."""
        self._tls = tls
        self._tls_context = None if tls is None else tls.context()
        if tls is not None and tls.client_ca is not None:
            http = type("CertifiedProtocol", (http,), {"wants_certificate": True})
        config = uvicorn.Config(
            app,
            http=http,
            ws="none",
            lifespan=lifespan,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
        config.load()
        config.ssl = self._tls_context
        logging.getLogger("uvicorn.error").addFilter(_not_cut_answers)
        self._server = _QuietUvicorn(config)
        self._bound = bound

    @property
    def started(self) -> bool:
        """Whether the application has started and requests are served."""
        return self._server.started

    async def serve(self) -> None:
        """Serve until `stop` is called; requests in flight get `DRAIN_S` seconds."""
        renewing = asyncio.create_task(self._renew()) if self._tls is not None else None
        try:
            await self._server.serve(sockets=[self._bound])
        finally:
            if renewing is not None:
                renewing.cancel()
            self._bound.close()

    async def _renew(self) -> None:
        """Use a new certificate for new connections when the files change."""
        tls, context = self._tls, self._tls_context
        assert tls is not None
        assert context is not None
        used = tls.stamp()
        while True:
            await asyncio.sleep(RENEW_S)
            stamp = tls.stamp()
            if stamp in (None, used):
                continue
            used = stamp
            try:
                tls.load(context)
                _log.info("certificate_renewed", file=str(tls.cert))
            except (OSError, ssl.SSLError) as error:
                _log.error("certificate_kept", file=str(tls.cert), problem=str(error))

    def stop(self, *, at_once: bool) -> None:
        """End `serve`."""
        self._server.should_exit = True
        self._server.force_exit = at_once


def event_loop_runner() -> asyncio.Runner:
    """A runner whose event loop is uvloop's."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def serve_until_signalled(
    servers: Sequence[Server], within: contextlib.AbstractAsyncContextManager[object] | None = None
) -> int:
    """Run all servers until SIGTERM or SIGINT; a second signal does not wait for requests in flight.

    The servers run inside the context `within`. A signal that arrives while it is entered ends them at once.
    Returns the exit code of the process: 0, or 130 after SIGINT.
    """
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        for server in servers:
            server.stop(at_once=len(received) > 1)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    async with within or contextlib.nullcontext():
        await asyncio.gather(*(server.serve() for server in servers))
    return INTERRUPTED if received[:1] == [signal.SIGINT] else 0
