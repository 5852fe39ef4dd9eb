"""Lists and watches objects with the official client: resume, bookmarks, expiry and back-off.

A watch resumes from the last resource version that it has seen, bookmarks included. If that version has expired (410),
the objects are listed again. While the API server is away nothing changes in the index, because the data path does not
depend on it. The server ends each watch after `WATCH_S`, so that a dead connection is noticed soon. No answer ends the
thread: what cannot be read counts as a failure and is asked for again, and lists and events are bounded in bytes.
"""

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import structlog
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

_log = structlog.get_logger("kvsync_indexer.discovery")

PAGE = 500
WATCH_S = 60
READ_TIMEOUT_S = 15
"""Read time-out of a list; a watch gets `WATCH_S` in addition."""
BACKOFF_S, BACKOFF_MAX_S = 0.2, 30.0
MAX_LIST_BYTES = 64 * 1024 * 1024
"""Size of one page of a list. A larger page is asked for again with half as many objects."""
MAX_EVENT_BYTES = 8 * 1024 * 1024
"""Size of one event of a watch; etcd stores objects of at most 1.5 MiB."""
SILENT_S = 3 * (WATCH_S + READ_TIMEOUT_S)
"""After this time without a turn of its loop, the thread counts as stuck."""


class ExpiredError(Exception):
    """The resource version is too old to resume a watch from."""


class OversizeError(ValueError):
    """An answer of the API server has more bytes than allowed."""


class WatchTable(Protocol):
    """Takes what a watch delivers, in the thread of the watch."""

    @property
    def problems(self) -> dict[str, str]:
        """Why an object cannot be used, by its name."""
        ...

    def replace(self, items: Iterable[Any], /) -> None:
        """Take a full list; every other object is gone."""
        ...

    def changed(self, item: Any, /) -> None:  # noqa: ANN401
        """Take an object that was added or modified."""
        ...

    def deleted(self, item: Any, /) -> None:  # noqa: ANN401
        """Take an object that is gone."""
        ...


class Watcher:
    """Follows objects of one kind, in a namespace (None: in all), in a thread of its own."""

    def __init__(
        self,
        call: Callable[..., Any],
        table: WatchTable,
        *,
        kind: str,
        namespace: str | None,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`call` is the list method of the official client, whose answer is not to be decoded."""
        self._call = call
        self.table = table
        self.kind = kind
        self.namespace = namespace
        self._rng = rng or random.Random()
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._response: Any = None
        self._version: str | None = None
        self.synced = threading.Event()
        """Set when the objects have been listed for the first time, or their kind is not installed."""
        self.lists = 0
        self.watches = 0
        self.failures = 0
        self.last_contact: float | None = None
        """Monotonic time of the API server's last answer."""
        self.problem: str | None = None
        self._page = PAGE
        self._turn = monotonic()
        name = f"kvsync-{kind}-{namespace or 'all'}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the watch and the thread."""
        self._stop.set()
        self._hang_up()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def health_problem(self) -> str | None:
        """Why the watch no longer works although the process runs; an API server that is away is no such reason."""
        if self._thread.ident is None or self._stop.is_set():
            return None
        thread = f"the watch thread of {self.kind} in namespace {self.namespace or '*'}"
        if not self.alive:
            return f"{thread} has ended"
        silent = self._monotonic() - self._turn
        if silent > SILENT_S:
            return f"{thread} has not turned for {silent:.0f} s"
        return None

    def _main(self) -> None:
        delay = BACKOFF_S
        while not self._stop.is_set():
            self._turn = self._monotonic()
            try:
                if self._version is None:
                    self._list()
                self._watch()
                delay, self.problem = BACKOFF_S, None
            except ExpiredError:
                _log.info("watch_expired", kind=self.kind, namespace=self.namespace)
                self._version = None
            except Exception as error:  # noqa: BLE001  whatever the server sends, the thread must go on
                if self._stop.is_set():
                    return
                if not isinstance(error, (ApiException, urllib3.exceptions.HTTPError, OSError)):
                    self._version = None  # resuming would bring the same event again
                self._failed(error)
                self._stop.wait(delay * (0.5 + self._rng.random()))
                delay = min(2 * delay, BACKOFF_MAX_S)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        problem = " ".join(str(getattr(error, "reason", None) or error).split())[:300]
        status = getattr(error, "status", None)
        self.problem = f"HTTP {status}: {problem}" if status else f"{type(error).__name__}: {problem}"
        _log.warning("kubernetes_api", kind=self.kind, namespace=self.namespace, problem=self.problem)
        if status in (404, 410):
            self._version = None
        if status == 404:  # the server does not know the kind, so there is nothing to wait for
            self.synced.set()

    def _list(self) -> None:
        found: list[Any] = []
        token: str | None = None
        while True:
            page = {"limit": self._page} if token is None else {"limit": self._page, "_continue": token}
            response = self._call(_preload_content=False, _request_timeout=READ_TIMEOUT_S, **page)
            try:
                answer = json.loads(_body(response))
            except OversizeError:
                if self._page == 1:
                    raise
                self._page //= 2
                continue
            finally:
                response.close()
                response.release_conn()
            self._turn = self.last_contact = self._monotonic()
            items, token, version = _list_of(answer)
            found += items
            if not token:
                break
        self.table.replace(found)
        self._version = version
        self.lists += 1
        self.synced.set()
        _log.info("objects_listed", kind=self.kind, namespace=self.namespace, found=len(found))

    def _watch(self) -> None:
        self.watches += 1
        self._response = self._call(
            _preload_content=False,
            watch=True,
            resource_version=self._version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_S,
            _request_timeout=(READ_TIMEOUT_S, WATCH_S + READ_TIMEOUT_S),
        )
        try:
            if self._stop.is_set():  # asked to stop while the connection was being made
                return
            for line in _lines(self._response):
                self._turn = self.last_contact = self._monotonic()
                self._event(json.loads(line))
                if self._stop.is_set():
                    return
        finally:
            self._hang_up()
            self._response = None

    def _event(self, event: dict[str, Any]) -> None:
        change, item = event["type"], event["object"]
        if not isinstance(item, dict):
            raise ValueError(f"an event of type {change!r:.40} has no object")
        if change == "ERROR":
            if item.get("code") == 410:
                raise ExpiredError
            raise ApiException(status=item.get("code"), reason=item.get("message"))
        if change == "DELETED":
            self.table.deleted(item)
        elif change in ("ADDED", "MODIFIED"):
            self.table.changed(item)
        metadata = item.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if isinstance(version, str):
            self._version = version

    def _hang_up(self) -> None:
        """Close the connection of the watch. Another thread may call this while the connection is being read."""
        response = self._response
        if response is None:
            return
        connection = getattr(response, "connection", None) or getattr(response, "_connection", None)
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is self._thread:
            response.close()


class PodWatcher(Watcher):
    """Follows the pods of one namespace (None: of all) that a label selector matches."""

    def __init__(
        self,
        api: client.CoreV1Api,
        table: WatchTable,
        *,
        namespace: str | None,
        selector: str,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        def call(**how: Any) -> Any:  # noqa: ANN401  urllib3's response
            if namespace is None:
                return api.list_pod_for_all_namespaces(label_selector=selector, **how)
            return api.list_namespaced_pod(namespace, label_selector=selector, **how)

        super().__init__(call, table, kind="pods", namespace=namespace, rng=rng, monotonic=monotonic)


def _body(response: Any) -> bytes:  # noqa: ANN401
    """The whole body. Raises OversizeError beyond MAX_LIST_BYTES."""
    data = bytearray()
    for chunk in response.stream(amt=1 << 20, decode_content=True):
        data += chunk
        if len(data) > MAX_LIST_BYTES:
            raise OversizeError(f"a list has more than {MAX_LIST_BYTES} bytes")
    return bytes(data)


def _list_of(answer: Any) -> tuple[list[Any], str | None, str]:  # noqa: ANN401
    """(objects, continue token, resource version) of one page. Raises ValueError if it is no list."""
    metadata = answer.get("metadata") if isinstance(answer, dict) else None
    items = answer.get("items") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(items, list):
        raise ValueError("the answer is not a list of objects")
    return items, metadata.get("continue"), str(metadata["resourceVersion"])


def _lines(response: Any) -> Iterator[bytes]:  # noqa: ANN401
    """The complete lines of a streamed body; an incomplete last line is dropped.

    Raises OversizeError for a line of more than MAX_EVENT_BYTES.
    """
    rest = b""
    for chunk in response.stream(amt=None, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > MAX_EVENT_BYTES:
            raise OversizeError(f"an event has more than {MAX_EVENT_BYTES} bytes")
