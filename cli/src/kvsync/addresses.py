"""Addresses that a user gives: each is checked once, and a bad one is refused with the reason before any connection."""

from urllib.parse import urlsplit

from kvsync.errors import UsageProblemError

_ANY_HOST = ("*", "0.0.0.0", "[::]")


def check_http_url(text: str, option: str) -> str:
    """The base URL of an HTTP server, without a slash at the end; `http://` may be left out.

    Raises UsageProblemError, which names the option.
    """
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageProblemError(f"{option} {text!r}: {_reason(error)}") from None
    problem = None
    if parts.scheme not in ("http", "https"):
        problem = f"the scheme is http or https, not {parts.scheme!r}"
    elif not host:
        problem = "has no host"
    elif port == 0:
        problem = "a port is a number from 1 to 65535"
    elif parts.query or parts.fragment:
        problem = "a base URL has no query and no fragment"
    elif not url.isprintable() or " " in url:
        problem = "contains a space or a control character"
    if problem is not None:
        raise UsageProblemError(f"{option} {text!r}: {problem}")
    return url


def check_endpoint(endpoint: str, *, bind: bool = False) -> None:
    """Raise UsageProblemError unless ZMQ can connect to the endpoint, or with `bind` bind it."""
    problem = _ipc_problem(endpoint) if endpoint.startswith("ipc://") else _tcp_problem(endpoint, bind=bind)
    if problem is not None:
        raise UsageProblemError(f"endpoint {endpoint!r}: {problem}")


def split_tcp(endpoint: str) -> tuple[str, int]:
    """Host and port of a TCP endpoint that was checked."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _ipc_problem(endpoint: str) -> str | None:
    return None if len(endpoint) > len("ipc://") else "has no path"


def _tcp_problem(endpoint: str, *, bind: bool) -> str | None:
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not colon:
        return "must be tcp://HOST:PORT or ipc://PATH"
    if not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        return f"{port!r} is not a port from 1 to 65535"
    if not host or any(character.isspace() for character in host):
        return "has no host" if not host else "contains a space"
    if host.startswith("[") != host.endswith("]"):
        return "an IPv6 address needs both brackets"
    if host in _ANY_HOST and not bind:
        return f"nobody can connect to {host}, only bind it (--bind)"
    return None


def _reason(error: ValueError) -> str:
    text = str(error)
    return "a port is a number from 1 to 65535" if "port" in text.lower() else text
