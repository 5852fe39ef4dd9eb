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

MAX_PORT = 65535


class RouterFront:
    """`--router-port` and the flags that go with it."""

    def options(self) -> Sequence[click.Option]:
        """The flags of the router."""
        return [
            click.Option(["--router-port"], type=int, help="Serve the router on this port, in this process."),
            click.Option(["--router-policy"], default="kv", help="kv, least_request, round_robin or random."),
            click.Option(["--router-seed"], type=int, default=0, help="Seed of the router's random choices."),
            click.Option(
                ["--router-first-byte-timeout"], type=float, default=120.0, help="Seconds until an answer begins."
            ),
            click.Option(
                ["--router-idle-timeout"], type=float, default=120.0, help="Longest pause of an answer, in s."
            ),
        ]

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
            config = RouterConfig.parse(
                {
                    "policy": policy,
                    "seed": values["router_seed"],
                    "first_byte_timeout_s": values["router_first_byte_timeout"],
                    "idle_timeout_s": values["router_idle_timeout"],
                }
            )
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
        from kvsync_router.routing import Routing

        return HttpServer(ProxyApp(Routing.in_process(self.config, index)), self.bound)

    def close(self) -> None:
        """Close the port."""
        self.bound.close()


router_front = RouterFront()
