"""A small Kubernetes API server over real HTTP, for tests of operators and of whatever else watches a cluster.

It implements discovery, list (in pages), watch (with bookmarks, and resuming from a version), get, server-side apply,
merge patch, create and delete for the kinds in `store`, and injects faults on request: failing answers, silent, ended
or expired watches, and broken watch lines. It runs in its own thread, because kopf would otherwise treat its tasks as
tasks of the operator. It does not simulate Kubernetes: validation is tested on a real API server.
"""

import asyncio
import json
import re
import threading
from collections import Counter
from pathlib import Path as FilePath
from typing import Self

import yaml
from aiohttp import web

from kvsync_testkit.cluster.answering import Asked, Fault, Watch, answer, refuse
from kvsync_testkit.cluster.store import KINDS, Change, Path, RefusedError, Store
from kvsync_testkit.kube import Object

_START_S = 10.0


class FakeKube:
    """The server. Use as `with FakeKube() as api`."""

    def __init__(self, *, page_size: int = 500) -> None:
        self.store = Store(self._feed)
        self.page_size = page_size
        """Objects that a page of a list has at most, whatever limit the client asks for."""
        self.requests: Counter[str] = Counter()
        """Requests by method and plural, such as "GET pods"."""
        self.asked: list[Asked] = []
        """Every list and watch, in order."""
        self.faults: list[Fault] = []
        self.silent: set[str] = set()
        """Plurals whose changes no watch is told."""
        self.uninstalled: set[str] = set()
        """Plurals that the server does not know at the moment, as before their CRD is installed."""
        self.watches: list[Watch] = []
        """The watches that run."""
        self.url = ""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), name="fake kube", daemon=True)
        self._thread.start()
        if not started.wait(_START_S):
            raise TimeoutError("the fake API server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(_START_S)
        if self._thread.is_alive():
            raise TimeoutError("the fake API server did not end")

    def kubeconfig(self, folder: FilePath) -> FilePath:
        """Write a kubeconfig file for this server into `folder` and return its path."""
        file = folder / "kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "none"}}],
        }
        file.write_text(yaml.safe_dump(document))
        return file

    # -- objects ----------------------------------------------------------------------------------------------------

    def put(self, document: Object) -> Object:
        """Apply an object as a user would; its status stays as it is."""
        return self.store.apply(path_of(document), document, "kubectl", status=False)

    def replace(self, document: Object) -> Object:
        """Put an object there as it is, status included, whatever was there before."""
        return self.store.replace(path_of(document), document)

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return the object, None if there is none."""
        return self.store.objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[Object]:
        """Return every object of a kind."""
        return [obj for path, obj in list(self.store.objects.items()) if path[0] == plural]

    # -- faults -----------------------------------------------------------------------------------------------------

    def fail(self, method: str, path: str, status: int, times: int = 1) -> None:
        """Answer the next `times` requests whose path matches the regular expression with `status`."""
        self.faults.append(Fault(method, path, status, times))

    def bookmark(self) -> str:
        """Send a bookmark to every watch, and return its version."""
        version = str(self.store.next_version())
        for watch in list(self.watches):
            api_version, kind = watch.kind
            body = {"apiVersion": api_version, "kind": kind, "metadata": {"resourceVersion": version}}
            self._tell(watch, {"type": "BOOKMARK", "object": body})
        return version

    def expire(self) -> None:
        """Forget the history: running watches are told "410 Gone", and none can resume from an earlier version."""
        self.store.expire()
        for watch in list(self.watches):
            self._tell(watch, {"type": "ERROR", "object": refuse(410, "too old")})

    def end_watches(self) -> None:
        """End every watch, as an API server does after some minutes."""
        for watch in list(self.watches):
            self._loop.call_soon_threadsafe(watch.lines.put_nowait, None)

    def tell_raw(self, line: bytes) -> None:
        """Send this line to every watch, whatever it is."""
        for watch in list(self.watches):
            self._loop.call_soon_threadsafe(watch.lines.put_nowait, line)

    # -- serving ----------------------------------------------------------------------------------------------------

    def _serve(self, started: threading.Event) -> None:
        async def serve() -> None:
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started.set()
            await self._stopped.wait()
            for watch in self.watches:
                watch.lines.put_nowait(None)
            await runner.cleanup()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve())
        self._loop.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = "/" + request.match_info["path"]
        for fault in self.faults:
            if fault.times > 0 and fault.method == request.method and re.search(fault.path, path):
                fault.times -= 1
                return web.json_response(refuse(fault.status, "an injected fault"), status=fault.status)
        try:
            return await answer(self, request, path)
        except RefusedError as error:
            return web.json_response(refuse(error.status, str(error)), status=error.status)

    def _feed(self, change: Change) -> None:
        if change.path[0] in self.silent:
            return
        for watch in list(self.watches):
            event = watch.shows(change)
            if event is not None:
                self._tell(watch, event)

    def _tell(self, watch: Watch, event: Object) -> None:
        self._loop.call_soon_threadsafe(watch.lines.put_nowait, json.dumps(event).encode())


def path_of(document: Object) -> Path:
    """Where an object with apiVersion, kind and metadata is stored."""
    metadata = document["metadata"]
    plural = KINDS[document["apiVersion"], document["kind"]]
    return plural, metadata.get("namespace", ""), metadata["name"]
