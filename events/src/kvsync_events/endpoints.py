"""vLLM's rules for event endpoints: who binds, and where rank N publishes.

Both ends must follow them to the letter, a pod to be found and an index to find it. Source: `ZmqEventPublisher` of
vLLM 0.9.0 to 0.33.0.
"""

from kvsync_events.errors import EndpointError


def publisher_binds(endpoint: str) -> bool:
    """Whether the publisher binds this endpoint; otherwise it connects, so the index must bind.

    Wildcards, any IPv6 address with `::`, ipc and inproc are bound; `tcp://0.0.0.0:5557` is connected.
    """
    return "*" in endpoint or "::" in endpoint or endpoint.startswith(("ipc://", "inproc://"))


def rank_endpoint(endpoint: str, rank: int) -> str:
    """The endpoint of one data-parallel rank: tcp port plus rank, inproc name with `_dpN`.

    Port 0 (any free port) stays. Raises EndpointError for a rank above 0 on ipc, a bad port, or a port over 65535.
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
