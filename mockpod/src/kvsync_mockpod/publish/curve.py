"""CURVE on the event sockets of a pod: it encrypts them, and admits clients by their keys.

vLLM has no such option. It stands for a proxy in front of an engine, or for an engine that gets one.
"""

import logging

import zmq
from zmq.auth.thread import ThreadAuthenticator

from kvsync_events import CurveKeyError
from kvsync_events.curve import read_key, read_keys
from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.errors import ConfigError


class CurveServer:
    """The server's side of every event and replay socket of the pod."""

    def __init__(self, secret_key: str, clients: frozenset[str] | None = None) -> None:
        """`clients` are the public keys that are admitted; None admits whoever knows the server's public key."""
        self._secret = secret_key.encode()
        self._clients = clients
        self._authenticator: ThreadAuthenticator | None = None

    @classmethod
    def of(cls, config: PodConfig) -> "CurveServer | None":
        """The server that the configuration asks for. Raises ConfigError."""
        secret, clients = config.mock_curve_key, config.mock_curve_clients
        if secret is None:
            if clients is not None:
                raise ConfigError("mock_curve_clients: needs mock_curve_key")
            return None
        try:
            admitted = None if clients is None else frozenset(read_keys(clients, "public"))
            return cls(read_key(secret, "secret"), admitted)
        except CurveKeyError as error:
            raise ConfigError(f"mock_curve_key or mock_curve_clients: {error}") from None

    def start(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """Begin to admit clients; to be called before the sockets are opened."""
        if self._clients is not None:
            self._authenticator = ThreadAuthenticator(context, log=logging.getLogger("kvsync_mockpod.curve"))
            self._authenticator.start()
            self._authenticator.configure_curve_callback("*", credentials_provider=self)

    def stop(self) -> None:
        """End; to be called after the sockets are closed."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None

    def secure(self, socket: "zmq.Socket[bytes]") -> None:
        """Set the options of a socket, before it binds or connects."""
        socket.curve_server = True
        socket.curve_secretkey = self._secret

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether a client with this public key is admitted; called by the authenticator's thread."""
        return self._clients is not None and key.decode("ascii", "replace") in self._clients
