"""Addresses as gateways write them, and the subset of endpoints to which a gateway limits a choice."""

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

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
