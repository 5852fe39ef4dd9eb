"""The process: listening sockets, one event loop, one or two HTTP servers, signals."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal

import msgspec
import structlog
import uvicorn
import uvloop

from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.service.app import IndexApp
from kvsync_indexer.service.protocol import match_protocol
from kvsync_indexer.service.request import MatchRequest
from kvsync_indexer.service.service import IndexService

_log = structlog.get_logger("kvsync_indexer.service")

BACKLOG = 2048
DRAIN_S = 5
SWITCH_S = 0.0005
"""How long a thread that wants the interpreter lock waits before it is given up for it. CPython's 5 ms is what an event
would wait whenever a long answer (metrics, a dump) is being made."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: two run in one loop, and the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def listen(host: str, port: int, flag: str) -> socket.socket:
    """A bound, listening socket. Raises ConfigError naming the flag."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise ConfigError(f"{flag} {port}: cannot listen on {host}:{port}: {error.strerror or error}") from None
    bound.setblocking(False)
    return bound


def _server(
    app: Callable[..., Awaitable[None]],
    lifespan: str,
    http: type[asyncio.Protocol] | Literal["httptools"] = "httptools",
) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=http,
            ws="none",
            lifespan=lifespan,  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )


def run(config: IndexerConfig) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfigError before serving. Returns the exit code."""
    sys.setswitchinterval(SWITCH_S)
    with contextlib.ExitStack() as on_refusal:
        bound = on_refusal.enter_context(listen(config.host, config.port, "--port"))
        router_bound = None
        if config.router_port is not None:
            router_bound = on_refusal.enter_context(listen(config.host, config.router_port, "--router-port"))
        service = IndexService(config)
        on_refusal.pop_all()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, service, bound, router_bound))


async def _serve(
    config: IndexerConfig, service: IndexService, bound: socket.socket, router_bound: socket.socket | None
) -> int:
    app = IndexApp(service)
    servers = [(_server(app, "off", match_protocol(app.quick_match)), bound)]
    if router_bound is not None:
        servers.append((_server(_router_app(config, service), "on"), router_bound))
    received: list[int] = []

    def stop(signum: int) -> None:
        received.append(signum)
        for server, _ in servers:
            server.should_exit = True
            server.force_exit = len(received) > 1

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    await service.start()
    try:
        await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in servers))
    finally:
        await service.stop()
        for _, listening in servers:
            listening.close()
    return 130 if received and received[0] == signal.SIGINT else 0


def _router_app(config: IndexerConfig, service: IndexService) -> Callable[..., Awaitable[None]]:
    """The router on this index, without a round trip."""
    from kvsync_indexer.router import (
        CallableDirectory,
        CallablePredictions,
        CallableScorer,
        Prediction,
        Query,
        RouterConfig,
        build_router,
    )

    async def score(query: Query) -> dict[str, int]:
        request = MatchRequest(
            model=query.model,
            token_ids=None if query.token_ids is None else list(query.token_ids),
            prompt=query.prompt,
            messages=msgspec.json.decode(query.messages) if query.messages else None,
            lora=query.lora,
            cache_salt=query.cache_salt,
        )
        try:
            return dict(await service.matcher.matched_tokens(request))
        except Exception as error:
            _log.warning("router_without_match", problem=f"{type(error).__name__}: {error}")
            raise  # the router then places the request by load

    def record(report: Prediction) -> None:
        service.record_prediction(report.publisher, report.predicted_tokens, report.cached_tokens, report.prompt_tokens)

    router_config = RouterConfig(policy=config.router_policy, seed=config.router_seed)
    directory, predictions = CallableDirectory(service.rows), CallablePredictions(record)
    return build_router(router_config, directory, CallableScorer(score), predictions=predictions).app
