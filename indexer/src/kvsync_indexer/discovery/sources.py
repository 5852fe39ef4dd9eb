"""What an engine answers to `GET /kv_event_sources` (vLLM 0.31 and later): the endpoints that its ranks really bound.

The answer decides over arguments, which cannot tell the port of `tcp://*:0`. It comes from a pod, so it is bounded in
time, bytes and ranks, redirects are not followed, and only endpoints on the pod's own addresses are used.
"""

import http.client
import io
import socket
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kvsync_indexer.discovery.limits import MAX_RANK, MAX_RANKS, ArgumentsError, number, parse_json, quoted, text_of

PATH = "/kv_event_sources"
ANSWER_S = 3.0
MAX_ANSWER_BYTES = 128 * 1024
_HEAD_BYTES = 16 * 1024
_ANY_HOST = frozenset({"*", "0.0.0.0", "[::]"})


@dataclass(frozen=True, slots=True)
class RankSource:
    """The event endpoint of one rank."""

    rank: int
    position: int
    """Position among all ranks of the front end, which is its number in `X-data-parallel-rank`."""
    host: str
    events_port: int
    replay_port: int | None
    topic: str


Sources = tuple[RankSource, ...]


def fetch_sources(url: str, deadline_s: float = ANSWER_S) -> Sources | None:
    """Ask the engine at `url`. Returns None if it does not offer the list.

    Raises OSError if no whole answer came within the deadline, and ArgumentsError if the answer is unusable.
    """
    status, body = _get(url, time.monotonic() + deadline_s)
    if status >= 500:
        raise OSError(f"status {status}")
    return parse_sources(body) if status == 200 else None


def _get(url: str, deadline: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    request = f"GET {PATH} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    data = bytearray()
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=_left(deadline)) as sock:
        sock.sendall(request.encode())
        while True:
            sock.settimeout(_left(deadline))
            chunk = sock.recv(65536)
            if not chunk:
                break
            data += chunk
            if len(data) > MAX_ANSWER_BYTES + _HEAD_BYTES:
                raise ArgumentsError(f"{PATH} answers more than {MAX_ANSWER_BYTES} bytes")
    response = http.client.HTTPResponse(_Received(bytes(data)))  # type: ignore[arg-type]
    try:
        response.begin()
        return response.status, response.read()
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"no HTTP answer: {type(error).__name__}") from None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _Received:
    """Gives the received bytes to `HTTPResponse`, which reads from a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def parse_sources(body: bytes) -> Sources:
    """Parse the answer: a map of rank to configuration, or a list whose items name their rank.

    Raises ArgumentsError.
    """
    answer = parse_json(PATH, body.decode("utf-8", "replace"), limit=MAX_ANSWER_BYTES)
    if isinstance(answer, dict):
        pairs: Iterable[tuple[Any, Any]] = answer.items()
    elif isinstance(answer, list):
        pairs = [(item.get("data_parallel_rank") if isinstance(item, dict) else None, item) for item in answer]
    else:
        raise ArgumentsError(f"{PATH} answers {quoted(answer)}, which is neither an object nor a list")
    by_rank: dict[int, Any] = {}
    for key, config in pairs:
        rank = number(f"{PATH} rank", str(key), 0, MAX_RANK)
        if rank in by_rank:
            raise ArgumentsError(f"{PATH} lists rank {rank} twice")
        by_rank[rank] = config
    found = (_source(rank, at, by_rank[rank]) for at, rank in enumerate(sorted(by_rank)))
    return tuple(source for source in found if source is not None)


def _source(rank: int, position: int, config: object) -> RankSource | None:
    where = f"{PATH} rank {rank}"
    if not isinstance(config, dict):
        raise ArgumentsError(f"{where} {quoted(config)} is not an object")
    if config.get("publisher") == "null" or config.get("enable_kv_cache_events") is False:
        return None
    host, events_port = _host_and_port(f"{where} endpoint", config.get("endpoint"))
    replay = config.get("replay_endpoint")
    replay_port = None if replay is None else _host_and_port(f"{where} replay_endpoint", replay)[1]
    return RankSource(
        rank, position, host, events_port, replay_port, text_of(f"{where} topic", config.get("topic", ""))
    )


def _host_and_port(name: str, endpoint: object) -> tuple[str, int]:
    text = text_of(name, endpoint)
    host, colon, port = text.removeprefix("tcp://").rpartition(":")
    if not text.startswith("tcp://") or not colon or not host:
        raise ArgumentsError(f"{name} {quoted(text)} is not tcp://host:port")
    return host, number(f"{name} port", port, 1, 65535)


def own_sources(sources: Sources, addresses: Collection[str]) -> Sources:
    """The ranks on the pod's own addresses. Raises ArgumentsError if there are none, or too many."""
    own = tuple(each for each in sources if each.host in _ANY_HOST or each.host.strip("[]") in addresses)
    if not own:
        what = "no endpoint on this pod's addresses" if sources else "no publisher"
        raise ArgumentsError(f"{PATH} lists {what}")
    if len(own) > MAX_RANKS:
        raise ArgumentsError(f"{PATH} lists {len(own)} ranks; {MAX_RANKS} are allowed")
    return own
