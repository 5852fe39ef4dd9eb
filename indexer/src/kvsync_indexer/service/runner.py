"""The process: sockets, the service, and one event loop for the servers of the index and its fronts."""

import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial

from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.errors import ConfigError, ListenError
from kvsync_indexer.fronts import FrontRequest, OpenFront
from kvsync_indexer.service.app import IndexApp
from kvsync_indexer.service.protocol import match_protocol
from kvsync_indexer.service.service import IndexService
from kvsync_indexer.serving import HttpServer, event_loop_runner, listen, serve_until_signalled

SWITCH_INTERVAL_S = 0.0005
"""GIL switch interval. With CPython's default of 5 ms, the I/O thread would wait that long for every event that arrives
while a long answer (metrics, a dump) is being written."""


def run(config: IndexerConfig, fronts: Sequence[FrontRequest] = ()) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code. Raises ConfigError before anything is started."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with contextlib.ExitStack() as on_refusal:
        bound = on_refusal.enter_context(_listen(config))
        opened: list[OpenFront] = []
        for request in fronts:
            front = request.front.open(request.values, host=config.host, index_port=config.port)
            if front is not None:
                on_refusal.callback(front.close)
                opened.append(front)
        tls = config.tls()
        if tls is not None:
            tls.context()  # an unusable file is refused before anything is started
        service = IndexService(config)
        on_refusal.pop_all()
    with event_loop_runner() as runner:
        return runner.run(_serve(service, bound, opened))


def _listen(config: IndexerConfig) -> socket.socket:
    try:
        return listen(config.host, config.port)
    except ListenError as error:
        raise ConfigError(f"--port {config.port}: {error}") from None


async def _serve(service: IndexService, bound: socket.socket, fronts: Sequence[OpenFront]) -> int:
    app = IndexApp(service)
    access = service.access
    admits = partial(access.allows, "/v1/match") if access.limited else None
    http = match_protocol(app.quick_match, admits)
    index = HttpServer(app, bound, lifespan="off", http=http, tls=service.config.tls())
    servers = [index, *(front.server(service) for front in fronts)]
    return await serve_until_signalled(servers, _running(service))


@contextlib.asynccontextmanager
async def _running(service: IndexService) -> AsyncIterator[None]:
    await service.start()
    try:
        yield
    finally:
        await service.stop()
