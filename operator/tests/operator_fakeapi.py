"""A small Kubernetes API server over real HTTP, for tests of the whole operator with kopf and the official client.

It implements list, watch, get, server-side apply, create and delete for the kinds in `operator_fakestore`, and injects
faults on request: failing answers and silent watches. It runs in its own thread, because kopf would otherwise treat its
tasks as tasks of the operator. It does not simulate Kubernetes: validation is tested on a real API server (test/e2e).
"""

import asyncio
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Self

import yaml
from aiohttp import web
from operator_fakestore import BY_PLURAL, KINDS, Object, RefusedError, Store


@dataclass
class Fault:
    """Answer the next `times` matching requests with `status`."""

    method: str
    path: str
    status: int
    times: int


@dataclass
class FakeApi:
    """The server. Use as `with FakeApi() as api`."""

    store: Store = None  # type: ignore[assignment]
    requests: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    url: str = ""
    _watchers: list[tuple[str, str | None, str, asyncio.Queue[Any]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.store = Store(self._feed)
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), name="fake api", daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self, started: threading.Event) -> None:
        async def serve() -> None:
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started.set()
            await self._stopped.wait()
            for *_, queue in self._watchers:
                queue.put_nowait(None)
            await runner.cleanup()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve())
        self._loop.close()

    def kubeconfig(self, folder: FilePath) -> FilePath:
        """Write a kubeconfig file for this server into `folder`."""
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

    # For tests

    def put(self, document: Object) -> Object:
        """Apply an object as a user would; its status stays as it is."""
        plural = KINDS[document["apiVersion"], document["kind"]]
        metadata = document["metadata"]
        path = (plural, metadata["namespace"], metadata["name"])
        return self.store.apply(path, document, "kubectl", True, False)

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return the object, None if there is none."""
        return self.store.objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[Object]:
        """Return every object of a kind."""
        return [obj for path, obj in list(self.store.objects.items()) if path[0] == plural]

    def fail(self, method: str, path: str, status: int, times: int = 1) -> None:
        """Answer the next `times` requests whose path matches with `status`."""
        self.faults.append(Fault(method, path, status, times))

    # For clients

    def _feed(self, kind: str, plural: str, obj: Object, before: Object | None) -> None:
        if plural in self.silent:
            return
        for watched, namespace, selector, queue in list(self._watchers):
            if watched != plural or namespace not in (None, obj["metadata"].get("namespace")):
                continue
            if _selects(selector, obj):
                self._loop.call_soon_threadsafe(queue.put_nowait, {"type": kind, "object": obj})
            elif before is not None and _selects(selector, before):  # it is no longer selected
                self._loop.call_soon_threadsafe(queue.put_nowait, {"type": "DELETED", "object": before})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = "/" + request.match_info["path"]
        for fault in self.faults:
            if fault.times > 0 and fault.method == request.method and re.search(fault.path, path):
                fault.times -= 1
                return _status(fault.status, "an injected fault")
        try:
            return await self._route(request, path)
        except RefusedError as error:
            return _status(error.status, str(error))

    async def _route(self, request: web.Request, path: str) -> web.StreamResponse:
        if (discovery := _discovery(path)) is not None:
            return web.json_response(discovery)
        found = re.fullmatch(
            r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)"
            r"(?:/(?P<name>[^/]+))?(?P<status>/status)?",
            path,
        )
        if found is None or found["plural"] not in BY_PLURAL:
            raise RefusedError(404, f"no such path {path}")
        plural, namespace, name = found["plural"], found["ns"], found["name"]
        self.requests[f"{request.method} {plural}"] += 1
        if name is None and request.method == "GET":
            if request.query.get("watch"):
                return await self._watch(request, plural, namespace)
            return web.json_response(self._list(plural, namespace, request.query.get("labelSelector", "")))
        key = (plural, namespace or "", name or "")
        match request.method:
            case "GET":
                if key not in self.store.objects:
                    raise RefusedError(404, f"{name} not found")
                return web.json_response(self.store.objects[key])
            case "PATCH":
                body = json.loads(await request.text())  # JSON is valid YAML and is parsed much faster
                force = request.query.get("force") == "true"
                manager = request.query["fieldManager"]
                return web.json_response(self.store.apply(key, body, manager, force, bool(found["status"])))
            case "POST":
                body = await request.json()
                return web.json_response(self.store.create((plural, key[1], body["metadata"]["name"]), body))
            case "DELETE":
                return web.json_response(self.store.delete(key))
        raise RefusedError(405, request.method)

    def _list(self, plural: str, namespace: str | None, selector: str) -> Object:
        api_version, kind = BY_PLURAL[plural]
        items = [
            {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}  # as the real server does
            for (kind_, space, _), obj in list(self.store.objects.items())
            if kind_ == plural and namespace in (None, space) and _selects(selector, obj)
        ]
        version = {"resourceVersion": self.store.version}
        return {"apiVersion": api_version, "kind": f"{kind}List", "metadata": version, "items": items}

    async def _watch(self, request: web.Request, plural: str, namespace: str | None) -> web.StreamResponse:
        selector = request.query.get("labelSelector", "")
        since = int(request.query.get("resourceVersion") or 0)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        entry = (plural, namespace, selector, queue)
        self._watchers.append(entry)
        for (kind, space, _), obj in list(self.store.objects.items()):  # changes between the list and the watch
            newer = int(obj["metadata"]["resourceVersion"]) > since
            if kind == plural and namespace in (None, space) and _selects(selector, obj) and newer:
                queue.put_nowait({"type": "MODIFIED", "object": obj})
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            while (event := await queue.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._watchers.remove(entry)
        return response


def _status(code: int, message: str) -> web.Response:
    body = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": message}
    return web.json_response(body, status=code)


def _selects(selector: str, obj: Object) -> bool:
    labels = obj["metadata"].get("labels") or {}
    return all(labels.get(part.split("=")[0]) == part.split("=")[1] for part in selector.split(",") if part)


def _discovery(path: str) -> Object | None:
    groups: dict[str, list[str]] = {}
    for api_version, _ in KINDS:
        group, _, version = api_version.rpartition("/")
        groups.setdefault(group, []).append(version)
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        rows = [
            {"name": group, "versions": [{"version": versions[0]}], "preferredVersion": {"version": versions[0]}}
            for group, versions in groups.items()
            if group
        ]
        return {"groups": rows}
    api_version = path.removeprefix("/apis/").removeprefix("/api/")
    rows = [
        {
            "name": plural,
            "kind": kind,
            "singularName": kind.lower(),
            "namespaced": kind not in ("Namespace", "CustomResourceDefinition"),
            "verbs": ["get", "list", "watch", "patch", "create", "delete"],
        }
        for (version, kind), plural in KINDS.items()
        if version == api_version
    ]
    return {"resources": rows} if rows else None
