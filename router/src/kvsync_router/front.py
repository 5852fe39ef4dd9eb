"""The proxy as a front of `kvsync-indexer`: its flags, and the server that they ask for.

This module is loaded at every start of the index, so everything large is imported only when the front is used.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from kvsync_indexer.errors import ConfigError, ListenError
from kvsync_indexer.fronts import IndexAnswers, OpenFront
from kvsync_indexer.serving import HttpServer, Server, listen
from kvsync_router.config import RouterConfig
from kvsync_router.decisions.policies import POLICY_NAMES
from kvsync_router.errors import RouterConfigError
from kvsync_router.flags import setting_flags, settings_of

MAX_PORT = 65535
PREFIX = "router-"


class RouterFront:
    """`--router-port` and the flags that go with it."""

    def options(self) -> Sequence[click.Option]:
        """The flags of the router."""
        port = click.Option(["--router-port"], type=int, help="Serve the router on this port, in this process.")
        return [port, *setting_flags(PREFIX)]

    def open(self, values: Mapping[str, Any], *, host: str, index_port: int) -> OpenFront | None:
        """Check the flags and bind the port. Raises ConfigError."""
        policy, port = values["router_policy"], values["router_port"]
        if policy not in POLICY_NAMES:
            raise ConfigError(f"--router-policy {policy!r}: must be one of {', '.join(POLICY_NAMES)}")
        if port is None:
            return None
        if not 0 <= port <= MAX_PORT:
            raise ConfigError(f"--router-port {port}: must be between 0 and {MAX_PORT}")
        if port == index_port and port:
            raise ConfigError(f"--router-port {port}: is the index's own port; choose another")
        try:
            config = RouterConfig.parse(settings_of(values, PREFIX))
            return OpenRouterFront(config, listen(host, port))
        except RouterConfigError as error:
            raise ConfigError(str(error)) from None
        except ListenError as error:
            raise ConfigError(f"--router-port {port}: {error}") from None


@dataclass(frozen=True, slots=True)
class OpenRouterFront:
    """A router whose port is bound."""

    config: RouterConfig
    bound: socket.socket

    def server(self, index: IndexAnswers) -> Server:
        """The HTTP server of the proxy, on this index."""
        from kvsync_router.proxy import ProxyApp
        from kvsync_router.proxy.protocol import ClientProtocol
        from kvsync_router.routing import Routing

        return HttpServer(ProxyApp(Routing.in_process(self.config, index)), self.bound, http=ClientProtocol)

    def close(self) -> None:
        """Close the port."""
        self.bound.close()


router_front = RouterFront()
