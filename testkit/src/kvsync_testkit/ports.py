"""TCP ports on loopback that were free a moment ago."""

import socket


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports that nothing on 127.0.0.1 listens on.

    The ports are free when this returns; another process may still take one before the caller binds it, so a server
    that can bind port 0 and report its port should do that instead.

    Raises:
        OSError: the system has no free port left.
    """
    bound: list[socket.socket] = []
    try:
        for _ in range(count):
            bound.append(socket.socket())
            bound[-1].bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in bound]
    finally:
        for one in bound:
            one.close()


def free_port() -> int:
    """One port, as `free_ports` finds them."""
    return free_ports(1)[0]
