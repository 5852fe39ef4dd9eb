"""The kopf handlers. They record what the watches deliver and wake the workers; they make no decision.

Every watched kind has an index handler, which kopf calls for each object before any other handler. kopf calls no other
handler at all until it has listed every kind, so the cache is complete before the first pass. The event handlers wake
the worker of the custom resource to which an object belongs. Neither kind of handler does anything that can fail,
because kopf does not retry them.
"""

from dataclasses import dataclass
from typing import Any, cast

import kopf

from kvsync_operator import names
from kvsync_operator.cache import Cache, Key
from kvsync_operator.controller import Controller
from kvsync_operator.metrics import WATCH_EVENTS
from kvsync_operator.reconciler import Reconciler
from kvsync_operator.settings import OperatorSettings
from kvsync_operator.watchdog import Watchdog

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
"""(group, version, plural) of every kind that the operator creates. Only objects with its label are watched."""


@dataclass(slots=True)
class WatchHandlers:
    """The handlers, and the parts to which they pass on what the watches deliver."""

    cache: Cache
    controller: Controller
    watchdog: Watchdog
    reconciler: Reconciler

    async def object_seen(self, body: kopf.Body, **_: object) -> None:
        """Store the state of an object (a kopf index handler that indexes nothing)."""
        obj = dict(body)
        self.watchdog.saw(obj, self.controller.clock.monotonic())
        if obj["apiVersion"] == names.API_VERSION:
            self.cache.put_resource(obj)
        else:
            self.cache.put_object(obj)

    async def resource_changed(self, event: kopf.RawEvent, **_: object) -> None:
        """Handle the creation, change or deletion of a custom resource."""
        document = cast("dict[str, Any]", event["object"])
        metadata = document["metadata"]
        key = Key(document["kind"], metadata["namespace"], metadata["name"])
        WATCH_EVENTS.labels(key.kind).inc()
        if event["type"] == "DELETED":
            self.watchdog.saw(document, self.controller.clock.monotonic(), deleted=True)
            if self.cache.drop_resource(key, metadata["uid"]):
                self.controller.forget(key)
        else:
            self.controller.wake(key)

    async def child_changed(self, event: kopf.RawEvent, **_: object) -> None:
        """Handle the creation, change or deletion of an object with the operator's label."""
        obj = cast("dict[str, Any]", event["object"])
        WATCH_EVENTS.labels(obj["kind"]).inc()
        if event["type"] == "DELETED":
            self.watchdog.saw(obj, self.controller.clock.monotonic(), deleted=True)
            key = self.cache.drop_object(obj)
        else:
            key = self.cache.put_object(obj)
        if key is not None and self.cache.resource(key) is not None:
            self.controller.wake(key)


def configure_kopf(settings: kopf.OperatorSettings, own: OperatorSettings) -> None:
    """Set kopf's timeouts and selectors. kopf writes no finalizers or annotations here, so it only watches."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.exit_timeout = 0.2  # the handlers never block
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = own.request_timeout_s
    settings.networking.connect_timeout = 5
    settings.persistence.finalizer = f"{names.GROUP}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    for group, version, plural in CHILD_KINDS:
        settings.watching.label_selectors[group, version, plural] = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER}"


def build_registry(handlers: WatchHandlers, own: OperatorSettings) -> kopf.OperatorRegistry:
    """Register the handlers in a registry that belongs to this operator alone."""
    registry = kopf.OperatorRegistry()

    async def startup(settings: kopf.OperatorSettings, **_: object) -> None:
        configure_kopf(settings, own)

    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    async def cleanup(**_: object) -> None:
        await handlers.controller.close()  # kopf would wait for the workers, which do not end by themselves

    kopf.on.startup(registry=registry)(startup)
    kopf.on.cleanup(registry=registry)(cleanup)
    kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY, backoff=5)(login)
    for plural in names.PLURALS.values():
        kopf.index(names.GROUP, names.VERSION, plural, id=f"seen_{plural}", registry=registry)(handlers.object_seen)
        kopf.on.event(names.GROUP, names.VERSION, plural, registry=registry)(handlers.resource_changed)
    for group, version, plural in CHILD_KINDS:
        kopf.index(group, version, plural, id=f"seen_{plural}", registry=registry)(handlers.object_seen)
        kopf.on.event(group, version, plural, registry=registry)(handlers.child_changed)
    return registry
