"""Addresses as gateways write them, and the subset of endpoints to which a gateway or a client limits a choice.

A hint is the value of `x-gateway-destination-endpoint-subset`: addresses such as `10.0.0.5:8000`, as one string that is
separated by commas (a header, or metadata) or as a list (metadata).
"""

import ipaddress
from collections.abc import Iterable
from itertools import islice
from typing import Final, Protocol
from urllib.parse import urlsplit

SUBSET_HEADER: Final = "x-gateway-destination-endpoint-subset"
MOST_ENTRIES: Final = 4096
"""Entries of one hint that are read. Cutting a longer one can only restrict a request further."""
_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535


def split_address(text: str) -> tuple[str, int | None] | None:
    """(IP address, port) in `text`; the port is None if there is none. None for anything that is no IP address.

    IPv6 addresses have brackets if a port follows. The address is returned in its canonical form, so that two ways of
    writing the same one compare equal.
    """
    host, port = text, ""
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _MAX_PORT and len(port) < 6):
        return None
    try:
        return str(ipaddress.ip_address(host)), int(port) if port else None
    except ValueError:
        return None


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_and_port(url: str) -> tuple[str, int] | None:
    """The host and the port of an endpoint's URL, or None if it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return None if parts.hostname is None or port is None else (parts.hostname, port)


class Subset:
    """The endpoints that a gateway permits. An entry without a port permits every port of its address."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Entries that are no IP addresses permit nothing."""
        split = [found for found in map(split_address, entries) if found is not None]
        self._exact = {(host, port) for host, port in split if port is not None}
        self._hosts = {host for host, port in split if port is None}

    def permits(self, address: str) -> bool:
        """Whether the endpoint at this address, which has a port, may be picked."""
        found = split_address(address)
        return found is not None and (found in self._exact or found[0] in self._hosts)


class Addressed(Protocol):
    """What the router knows of an endpoint."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def url(self) -> str: ...  # noqa: D102


def entries_of(hint: str | Iterable[object]) -> list[str]:
    """The entries of a hint in either form."""
    parts = hint.split(",", MOST_ENTRIES) if isinstance(hint, str) else map(str, hint)
    return [entry for part in islice(parts, MOST_ENTRIES) if (entry := part.strip())]


def permitted_names(hint: str | Iterable[object], endpoints: Iterable[Addressed]) -> frozenset[str]:
    """The names of the endpoints that a hint permits. It may also contain their names, and host names of their URLs."""
    entries = entries_of(hint)
    subset, literal = Subset(entries), frozenset(entries)
    permitted: list[str] = []
    for endpoint in endpoints:
        found = host_and_port(endpoint.url)
        address = None if found is None else join_address(*found)
        if endpoint.name in literal or (address is not None and (address in literal or subset.permits(address))):
            permitted.append(endpoint.name)
    return frozenset(permitted)
