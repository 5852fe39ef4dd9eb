"""The whole of what kopf does here: watch, and tell what it saw.

Every watched kind has an index handler, which kopf runs for each object before any other handler, and
before it lets any handler run at all until every kind was listed; so the cache is full before the first
pass. The event handlers wake the daemon of the resource an object belongs to. Neither does anything
that can fail.
"""

from dataclasses import dataclass
from typing import Any, cast

import kopf

from kvsync_operator import names
from kvsync_operator.cache import Cache, Key
from kvsync_operator.controller import Controller
from kvsync_operator.metrics import WATCH_EVENTS
from kvsync_operator.service import Service
from kvsync_operator.settings import OperatorSettings
from kvsync_operator.watchdog import Watchdog

__all__ = ["CHILD_KINDS", "Watching", "build_registry", "configure"]

CHILD_KINDS: tuple[tuple[str, str, str], ...] = (
    ("", "v1", "serviceaccounts"),
    ("", "v1", "configmaps"),
    ("", "v1", "services"),
    ("apps", "v1", "deployments"),
    ("apps", "v1", "statefulsets"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "v1", "roles"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings"),
)
"""(group, version, plural) of every kind we make; only objects with our label are watched."""


@dataclass(slots=True)
class Watching:
    """Where what the watches bring goes."""

    cache: Cache
    controller: Controller
    watchdog: Watchdog
    service: Service

    async def seen(self, body: kopf.Body, **_: object) -> None:
        """An object exists in this state (kopf index handler; it indexes nothing)."""
        obj = dict(body)
        self.watchdog.saw(obj, self.controller.clock())
        if obj["apiVersion"] == names.API_VERSION:
            self.cache.put_resource(obj)
        else:
            self.cache.put_object(obj)

    async def resource_changed(self, event: kopf.RawEvent, **_: object) -> None:
        """A custom resource came, changed or went."""
        document = cast("dict[str, Any]", event["object"])
        metadata = document["metadata"]
        key = Key(document["kind"], metadata["namespace"], metadata["name"])
        WATCH_EVENTS.labels(key.kind).inc()
        if event["type"] == "DELETED":
            self.watchdog.saw(document, self.controller.clock(), deleted=True)
            if self.cache.drop_resource(key, metadata["uid"]):
                self.controller.forget(key)
                self.service.forget(key)
        else:
            self.controller.wake(key)

    async def child_changed(self, event: kopf.RawEvent, **_: object) -> None:
        """An object with our label came, changed or went."""
        obj = cast("dict[str, Any]", event["object"])
        WATCH_EVENTS.labels(obj["kind"]).inc()
        if event["type"] == "DELETED":
            self.watchdog.saw(obj, self.controller.clock(), deleted=True)
            key = self.cache.drop_object(obj)
        else:
            key = self.cache.put_object(obj)
        if key is not None and self.cache.resource(key) is not None:
            self.controller.wake(key)


def configure(settings: kopf.OperatorSettings, ours: OperatorSettings) -> None:
    """Kopf's settings: no finalizers or annotations are ever written, so only watching and timeouts matter."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.exit_timeout = 0.2  # our handlers never block
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = ours.request_timeout_s
    settings.networking.connect_timeout = 5
    settings.persistence.finalizer = f"{names.GROUP}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    for group, version, plural in CHILD_KINDS:
        settings.watching.label_selectors[group, version, plural] = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER}"


def build_registry(watching: Watching, ours: OperatorSettings) -> kopf.OperatorRegistry:
    """The handlers, in a registry of their own."""
    registry = kopf.OperatorRegistry()

    async def startup(settings: kopf.OperatorSettings, **_: object) -> None:
        configure(settings, ours)

    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    async def cleanup(**_: object) -> None:
        await watching.controller.close()  # else kopf waits for the daemons, which never end by themselves

    kopf.on.startup(registry=registry)(startup)
    kopf.on.cleanup(registry=registry)(cleanup)
    kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY, backoff=5)(login)
    for plural in names.PLURALS.values():
        kopf.index(names.GROUP, names.VERSION, plural, id=f"seen_{plural}", registry=registry)(watching.seen)
        kopf.on.event(names.GROUP, names.VERSION, plural, registry=registry)(watching.resource_changed)
    for group, version, plural in CHILD_KINDS:
        kopf.index(group, version, plural, id=f"seen_{plural}", registry=registry)(watching.seen)
        kopf.on.event(group, version, plural, registry=registry)(watching.child_changed)
    return registry
