"""Loopback networks: every pod gets an address of its own, so that its ports are the ones it has in a cluster.

Linux answers on all of 127.0.0.0/8. A run takes one network 127.x.y.0/24: pods from .1, the demo's router on .250. A
listening socket on .254 claims the network while the run lasts, so two runs never share one.
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
    """Somebody else listens where we want to."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"{host}:{port} cannot be used: {reason}")


def probe(host: str, port: int) -> None:
    """Check that nobody listens on host:port; PortTakenError says who does not let us."""
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
        """Address of what is no pod: the demo's router."""
        return f"{self.prefix}.{_CONTROL_HOST}"

    def pod(self, number: int) -> str:
        """Address of pod `number`, from 0."""
        if not 0 <= number < MAX_PODS:
            raise UsageProblemError(f"pod {number + 1}: a local run has at most {MAX_PODS}")
        return f"{self.prefix}.{number + 1}"

    def release(self) -> None:
        """Give the network back."""
        self._claim.close()

    @classmethod
    def claim(cls, prefix: str) -> Self:
        """Take `prefix`; PortTakenError while another run has it."""
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
    """The first network in which every wanted (host, port) is free; otherwise the first one's trouble, as one line."""
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
