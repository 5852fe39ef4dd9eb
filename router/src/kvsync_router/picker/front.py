"""The picker as a front of `kvsync-indexer`: its flags, and the server that they ask for.

This module is loaded at every start of the index, so everything large is imported only when the front is used.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kvsync_indexer.errors import ConfigError, ListenError
from kvsync_indexer.fronts import IndexAnswers, OpenFront
from kvsync_indexer.serving import HttpServer, Server, listen
from kvsync_router.config import RouterConfig
from kvsync_router.errors import RouterConfigError
from kvsync_router.flags import setting_flags, settings_of
from kvsync_router.picker.endpoints import follow_pool
from kvsync_router.picker.settings import MAX_BODY_BYTES, PROXY_ONLY
from kvsync_router.sources.pool import PoolSource

MAX_PORT = 65535
PREFIX = "epp-"
PORTS = ("--epp-port", "--epp-health-port", "--epp-metrics-port")


class PickerFront:
    """`--epp-port` and the flags that go with it."""

    def options(self) -> Sequence[click.Option]:
        """The flags of the picker."""
        return [
            click.Option(["--epp-port"], type=int, help="Serve the endpoint picker on this port, in this process."),
            click.Option(["--epp-health-port"], type=int, help="Serve its gRPC health without TLS on this port too."),
            click.Option(["--epp-metrics-port"], type=int, help="Serve its metrics over HTTP on this port."),
            click.Option(
                ["--epp-pool-name"], help="InferencePool whose pods are its endpoints, in place of the index's."
            ),
            click.Option(["--epp-pool-namespace"], help="Namespace of that InferencePool.  [default: own]"),
            click.Option(["--epp-single-address"], is_flag=True, help="Name one address only, for ORIGINAL_DST."),
            click.Option(["--epp-secure-serving/--no-epp-secure-serving"], default=True, help="Serve it with TLS."),
            click.Option(["--epp-cert-path"], type=click.Path(path_type=Path), help="Folder with tls.crt and tls.key."),
            *setting_flags(PREFIX, without=PROXY_ONLY),
        ]

    def open(self, values: Mapping[str, Any], *, host: str, index_port: int) -> OpenFront | None:
        """Check the flags and bind the ports. Raises ConfigError."""
        try:
            config = RouterConfig.parse({**settings_of(values, PREFIX), "max_body_bytes": MAX_BODY_BYTES})
            if values["epp_port"] is None:
                return None
            credentials, pool = _credentials(values), _pool(values)
        except RouterConfigError as error:
            raise ConfigError(str(error)) from None
        with contextlib.ExitStack() as on_refusal:
            bound: list[socket.socket | None] = []
            for flag in PORTS:
                port = values[flag.removeprefix("--").replace("-", "_")]
                bound.append(None if port is None else on_refusal.enter_context(_bind(flag, port, host, index_port)))
            on_refusal.pop_all()
        return OpenPickerFront(
            config=config,
            bound=bound,
            credentials=credentials,
            single_address=values["epp_single_address"],
            pool=pool,
        )


def _credentials(values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    from kvsync_router.picker.credentials import server_credentials

    return server_credentials(values["epp_cert_path"]) if values["epp_secure_serving"] else None


def _pool(values: Mapping[str, Any]) -> PoolSource | None:
    name, namespace = values["epp_pool_name"], values["epp_pool_namespace"]
    if name is None:
        if namespace is not None:
            raise RouterConfigError("--epp-pool-namespace: needs --epp-pool-name")
        return None
    return follow_pool("--epp-pool-name", name, namespace)


def _bind(flag: str, port: int, host: str, index_port: int) -> socket.socket:
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"{flag} {port}: must be between 0 and {MAX_PORT}")
    if port == index_port and port:
        raise ConfigError(f"{flag} {port}: is the index's own port; choose another")
    try:
        return listen(host, port)
    except ListenError as error:
        raise ConfigError(f"{flag} {port}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPickerFront:
    """A picker whose ports are bound."""

    config: RouterConfig
    bound: Sequence[socket.socket | None]
    """The sockets of `PORTS`; only the first is never None."""
    credentials: Any
    single_address: bool
    pool: PoolSource | None

    def server(self, index: IndexAnswers) -> Server:
        """The servers of the picker, on this index."""
        from kvsync_router.picker.server import PickerServer
        from kvsync_router.picker.status import status_app
        from kvsync_router.routing import Routing
        from kvsync_router.sources.pool import PoolDirectory

        processor, health, metrics = self.bound
        assert processor is not None
        directory = None if self.pool is None else PoolDirectory(self.pool, index.api_key)
        routing = Routing.in_process(self.config, index, directory)
        picker = PickerServer(
            routing, processor, health, credentials=self.credentials, single_address=self.single_address
        )
        if metrics is None:
            return picker
        return ServedTogether([picker, HttpServer(status_app(routing, picker), metrics, lifespan="off")])

    def close(self) -> None:
        """Close the ports."""
        for bound in self.bound:
            if bound is not None:
                bound.close()


class ServedTogether:
    """Several servers as one."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    async def serve(self) -> None:
        """Serve all of them until `stop` is called."""
        await asyncio.gather(*(server.serve() for server in self._servers))

    def stop(self, *, at_once: bool) -> None:
        """End `serve`."""
        for server in self._servers:
            server.stop(at_once=at_once)


picker_front = PickerFront()
