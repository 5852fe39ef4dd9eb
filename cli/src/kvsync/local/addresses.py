"""Loopback networks: each pod gets an address of its own, so that it can use the ports that it has in a cluster.

Linux answers on all of 127.0.0.0/8. A run takes one network 127.x.y.0/24, with pods from .1 and the demo's router on
.250. A listening socket on .254 claims the network for the duration of the run, so that two runs never share one.
"""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from kvsync.errors import KvsyncError, UsageProblemError

HTTP_PORT = 8000
EVENTS_PORT = 5557
REPLAY_PORT = 5558
INDEX_PORT = 8090
ROUTER_PORT = 8080
CLAIM_PORT = 8089
MAX_PODS = 200
_CONTROL_HOST = 250
_CLAIM_HOST = 254
_NETWORKS = tuple(f"127.1.{number}" for number in range(64))


class PortTakenError(KvsyncError):
    """Another process uses the port."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"{host}:{port} cannot be used: {reason}")


def probe(host: str, port: int) -> None:
    """Check that host:port can be bound. Raises PortTakenError."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
            tried.listen(1)
        except OSError as error:
            raise PortTakenError(host, port, (error.strerror or str(error)).lower()) from None


@dataclass(slots=True)
class Network:
    """One 127.x.y.0/24, claimed until `release`."""

    prefix: str
    _claim: socket.socket

    @property
    def control(self) -> str:
        """Address of the demo's router, which is no pod."""
        return f"{self.prefix}.{_CONTROL_HOST}"

    def pod(self, number: int) -> str:
        """Address of pod `number`, counted from 0. Raises UsageProblemError."""
        if not 0 <= number < MAX_PODS:
            raise UsageProblemError(f"pod {number + 1}: a local run has at most {MAX_PODS}")
        return f"{self.prefix}.{number + 1}"

    def release(self) -> None:
        """Release the network."""
        self._claim.close()

    @classmethod
    def claim(cls, prefix: str) -> Self:
        """Claim the network `prefix`. Raises PortTakenError if another run has it."""
        claim = socket.socket()
        try:
            claim.bind((f"{prefix}.{_CLAIM_HOST}", CLAIM_PORT))
            claim.listen(1)
        except OSError as error:
            claim.close()
            raise PortTakenError(f"{prefix}.{_CLAIM_HOST}", CLAIM_PORT, (error.strerror or "").lower()) from None
        return cls(prefix, claim)


def claim_network(
    wanted: Callable[[Network], Iterable[tuple[str, int]]], prefixes: Iterable[str] = _NETWORKS
) -> Network:
    """Claim the first network in which every wanted (host, port) is free. Raises PortTakenError for the first one."""
    first: PortTakenError | None = None
    for prefix in prefixes:
        try:
            network = Network.claim(prefix)
        except PortTakenError as error:
            first = first or error
            continue
        try:
            for host, port in wanted(network):
                probe(host, port)
        except PortTakenError as error:
            network.release()
            first = first or error
            continue
        return network
    raise first or UsageProblemError("no loopback network was offered")
