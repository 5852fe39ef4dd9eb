"""vLLM's rules for event endpoints: which side binds, and where a data-parallel rank publishes.

A mock engine follows them so that it can be found, and an index follows them to find an engine. Source:
`ZmqEventPublisher` of vLLM 0.9.0 to 0.33.0.
"""

from kvsync_events.errors import EndpointError


def publisher_binds(endpoint: str) -> bool:
    """Return whether the publisher binds this endpoint. Otherwise it connects, and the index must bind.

    vLLM binds wildcards, IPv6 addresses with `::`, ipc and inproc. It connects to `tcp://0.0.0.0:5557`.
    """
    return "*" in endpoint or "::" in endpoint or endpoint.startswith(("ipc://", "inproc://"))


def rank_endpoint(endpoint: str, rank: int) -> str:
    """Return the endpoint of one data-parallel rank: the tcp port plus the rank, or the inproc name with `_dpN`.

    Port 0, which means any free port, stays as it is.

    Raises:
        EndpointError: the rank is negative, the transport has no ranks (ipc), the endpoint does not end in a port,
            or the port of the rank exceeds 65535.
    """
    if rank < 0:
        raise EndpointError(f"rank {rank} is negative")
    if not endpoint or rank == 0:
        return endpoint
    if "inproc" in endpoint:
        return f"{endpoint}_dp{rank}"
    if "tcp" not in endpoint:
        raise EndpointError(f"endpoint {endpoint!r} cannot serve rank {rank}: only tcp and inproc have ranks")
    base, _, port = endpoint.rpartition(":")
    if not port.isascii() or not port.isdigit():
        raise EndpointError(f"endpoint {endpoint!r} does not end in a port")
    if int(port) == 0:
        return endpoint
    shifted = int(port) + rank
    if shifted > 65_535:
        raise EndpointError(f"endpoint {endpoint!r} has no port {shifted} for rank {rank}")
    return f"{base}:{shifted}"
