"""The picker as a front of `kvsync-indexer`: its flags, and the server that they ask for.

This module is loaded at every start of the index, so everything large is imported only when the front is used.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kvsync_indexer.errors import ConfigError, ListenError
from kvsync_indexer.fronts import IndexAnswers, OpenFront
from kvsync_indexer.serving import Server, listen
from kvsync_router.config import RouterConfig
from kvsync_router.errors import RouterConfigError
from kvsync_router.flags import setting_flags, settings_of
from kvsync_router.picker.settings import MAX_BODY_BYTES, PROXY_ONLY

MAX_PORT = 65535
PREFIX = "epp-"


class PickerFront:
    """`--epp-port` and the flags that go with it."""

    def options(self) -> Sequence[click.Option]:
        """The flags of the picker."""
        return [
            click.Option(["--epp-port"], type=int, help="Serve the endpoint picker on this port, in this process."),
            click.Option(["--epp-health-port"], type=int, help="Serve its gRPC health without TLS on this port too."),
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
            credentials = _credentials(values)
        except RouterConfigError as error:
            raise ConfigError(str(error)) from None
        bound = _bind("--epp-port", values["epp_port"], host, index_port)
        health = None
        if values["epp_health_port"] is not None:
            try:
                health = _bind("--epp-health-port", values["epp_health_port"], host, index_port)
            except ConfigError:
                bound.close()
                raise
        return OpenPickerFront(
            config=config,
            bound=bound,
            health=health,
            credentials=credentials,
            single_address=values["epp_single_address"],
        )


def _credentials(values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    from kvsync_router.picker.credentials import server_credentials

    return server_credentials(values["epp_cert_path"]) if values["epp_secure_serving"] else None


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
    bound: socket.socket
    health: socket.socket | None
    credentials: Any
    single_address: bool

    def server(self, index: IndexAnswers) -> Server:
        """The gRPC server of the picker, on this index."""
        from kvsync_router.picker.server import PickerServer
        from kvsync_router.routing import Routing

        return PickerServer(
            Routing.in_process(self.config, index),
            self.bound,
            self.health,
            credentials=self.credentials,
            single_address=self.single_address,
        )

    def close(self) -> None:
        """Close the ports."""
        self.bound.close()
        if self.health is not None:
            self.health.close()


picker_front = PickerFront()
