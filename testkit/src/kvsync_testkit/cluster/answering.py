"""How `FakeKube` answers requests: discovery, lists in pages, watches, and changes of single objects."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from kvsync_testkit.cluster.store import BY_PLURAL, KINDS, Change, RefusedError, Store
from kvsync_testkit.kube import Object

_CLUSTER_SCOPED = ("Namespace", "CustomResourceDefinition")
_OBJECT = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?P<status>/status)?"
)


@dataclass
class Fault:
    """Answer the next `times` matching requests with `status`."""

    method: str
    path: str
    status: int
    times: int


@dataclass(frozen=True)
class Asked:
    """A list or a watch that a client asked for; `namespace` is None for all namespaces."""

    plural: str
    namespace: str | None
    query: Mapping[str, str]


@dataclass
class Watch:
    """A watch that runs, and the lines that wait to be sent; None ends it."""

    plural: str
    namespace: str | None
    selector: str
    lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    @property
    def kind(self) -> tuple[str, str]:
        """(apiVersion, kind) of the objects watched."""
        return BY_PLURAL[self.plural]

    def shows(self, change: Change) -> Object | None:
        """Return the event that this watch sends for a change, None for a change that it does not show."""
        plural, namespace, _ = change.path
        if plural != self.plural or self.namespace not in (None, namespace):
            return None
        if selects(self.selector, change.object):
            return {"type": change.kind, "object": change.object}
        if change.before is not None and selects(self.selector, change.before):  # it is no longer selected
            return {"type": "DELETED", "object": change.before}
        return None


class Api(Protocol):
    """What is asked of the server."""

    store: Store
    page_size: int
    requests: Counter[str]
    asked: list[Asked]
    uninstalled: set[str]
    watches: list[Watch]


def refuse(code: int, message: str) -> Object:
    """The Status object of a failure."""
    return {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": message}


def selects(selector: str, obj: Object) -> bool:
    """Whether a label selector of the form `key=value,key` selects the object."""
    labels = obj["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value.removeprefix("=")):
            return False
    return True


async def answer(api: Api, request: web.Request, path: str) -> web.StreamResponse:
    """Answer one request.

    Raises:
        RefusedError: with the status of the answer.
    """
    if path in ("/readyz", "/livez"):
        return web.Response(text="ok")
    if (discovery := _discovery(path, api.uninstalled)) is not None:
        return web.json_response(discovery)
    found = _OBJECT.fullmatch(path)
    if found is None or found["plural"] not in BY_PLURAL or found["plural"] in api.uninstalled:
        raise RefusedError(404, f"no such path {path}")
    plural, namespace, name = found["plural"], found["ns"], found["name"]
    api.requests[f"{request.method} {plural}"] += 1
    if name is None and request.method == "GET":
        asked = Asked(plural, namespace, dict(request.query))
        api.asked.append(asked)
        if request.query.get("watch", "").lower() in ("1", "true"):
            return await _watch(api, request, asked)
        return web.json_response(_list(api, asked))
    key = (plural, namespace or "", name or "")
    return web.json_response(await _change(api.store, request, key, status=bool(found["status"])))


async def _change(store: Store, request: web.Request, key: tuple[str, str, str], *, status: bool) -> Object:
    match request.method:
        case "GET":
            if key not in store.objects:
                raise RefusedError(404, f"{key[2]} not found")
            return store.objects[key]
        case "PATCH":
            body = json.loads(await request.text())  # JSON is valid YAML and is parsed much faster
            if request.content_type == "application/merge-patch+json":
                return store.edit(key, body)
            return store.apply(key, body, request.query["fieldManager"], status=status)
        case "POST":
            body = await request.json()
            return store.create((key[0], key[1], body["metadata"]["name"]), body)
        case "DELETE":
            return store.delete(key)
    raise RefusedError(405, request.method)


def _list(api: Api, asked: Asked) -> Object:
    api_version, kind = BY_PLURAL[asked.plural]
    with api.store.lock:
        found = [
            {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}  # as the real server does
            for (plural, space, _), obj in sorted(api.store.objects.items(), key=lambda item: item[0])
            if plural == asked.plural
            and asked.namespace in (None, space)
            and selects(asked.query.get("labelSelector", ""), obj)
        ]
        metadata = {"resourceVersion": api.store.version}
    first = int(asked.query.get("continue") or 0)
    end = first + min(api.page_size, int(asked.query.get("limit") or len(found) or 1))
    if end < len(found):
        metadata["continue"] = str(end)
    return {"apiVersion": api_version, "kind": f"{kind}List", "metadata": metadata, "items": found[first:end]}


async def _watch(api: Api, request: web.Request, asked: Asked) -> web.StreamResponse:
    watch = Watch(asked.plural, asked.namespace, asked.query.get("labelSelector", ""))
    since = int(asked.query.get("resourceVersion") or 0)
    with api.store.lock:
        if 0 < since < api.store.oldest:
            watch.lines.put_nowait(json.dumps({"type": "ERROR", "object": refuse(410, "too old")}).encode())
        for change in api.store.history:  # what happened between the list and the watch
            event = watch.shows(change) if change.version > since else None
            if event is not None:
                watch.lines.put_nowait(json.dumps(event).encode())
        api.watches.append(watch)
    response = web.StreamResponse(headers={"content-type": "application/json"})
    try:
        await response.prepare(request)
        while (line := await watch.lines.get()) is not None:
            await response.write(line + b"\n")
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        api.watches.remove(watch)
    return response


def _discovery(path: str, uninstalled: Collection[str]) -> Object | None:
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
    resources = [
        {
            "name": plural,
            "kind": kind,
            "singularName": kind.lower(),
            "namespaced": kind not in _CLUSTER_SCOPED,
            "verbs": ["get", "list", "watch", "patch", "create", "delete"],
        }
        for (version, kind), plural in KINDS.items()
        if version == api_version and plural not in uninstalled
    ]
    return {"resources": resources} if resources else None
