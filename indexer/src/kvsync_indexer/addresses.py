"""Which addresses the programs connect to: anything but link-local addresses and the metadata services of clouds.

An engine's URL comes from a file or from a pod, and a redirect or a DNS name of a hostile engine may lead anywhere. A
metadata service gives credentials to whoever can reach it, so no engine is ever asked at such an address.
"""

import errno
import ipaddress
import socket
from typing import Any

import aiohttp

_METADATA = frozenset(
    ipaddress.ip_address(address) for address in ("100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Metadata services outside the link-local ranges: of Alibaba Cloud, Oracle Cloud, AWS and Google Cloud."""


def forbidden(host: str) -> bool:
    """Whether `host` is the address of a metadata service or link-local. A host name is not an address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_link_local) or mapped in _METADATA


def guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for one resolved address. Raises OSError for an address that must not be connected to."""
    family, kind, protocol, _, address = info
    if forbidden(str(address[0])):
        raise PermissionError(errno.EACCES, f"{address[0]} is a link-local or metadata address")
    return socket.socket(family, kind, protocol)


def guarded_connector(limit: int) -> aiohttp.TCPConnector:
    """A connection pool that refuses forbidden addresses, whether they were given or come from DNS."""
    return aiohttp.TCPConnector(limit=limit, keepalive_timeout=30.0, socket_factory=guarded_socket)
