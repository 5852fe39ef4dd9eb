"""Reconcile passes against the API server: observe, plan, apply and prune, write the status once, post events.

What to do is decided by the pure `kvsync_operator.reconcile`. A pass may be interrupted at any point; the next one
starts from what it then observes.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import structlog

from kvsync_operator import names
from kvsync_operator.cache import Cache, Key
from kvsync_operator.client import KubeClient
from kvsync_operator.clock import Clock
from kvsync_operator.controller import Pass
from kvsync_operator.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    IncompleteError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from kvsync_operator.grants import Grants
from kvsync_operator.metrics import EVENTS_POSTED, OBJECTS_APPLIED, OBJECTS_PRUNED, REPAIRS
from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import KubeObject, selector_text
from kvsync_operator.pools import change_pools, read_pools
from kvsync_operator.publishers import ask_index, ready_addresses, serves_tls
from kvsync_operator.reconcile import (
    KubeEvent,
    Observed,
    Plan,
    Problem,
    Reference,
    SyncReport,
    find_orphans,
    reconcile,
    reference_of,
)
from kvsync_operator.reconcile.ownership import is_owned
from kvsync_operator.watchdog import Watchdog

_log = structlog.get_logger()

_UNSYNCED_POLL_S = 2.0
"""How often an index that is not in sync is asked for its publishers, in seconds."""


@dataclass(slots=True)
class Reconciler:
    """Makes reconcile passes.

    Args:
        client: Access to the API server.
        cache: The state of all objects; the pass adds what it writes.
        watchdog: Told which versions the watches must deliver.
        session: Used for requests to index pods.
        images: Images of pods whose resource names none.
        grants: Which PrefixIndexes may follow the pods of other namespaces.
        sync_poll_s: How often an index that is in sync is asked for its publishers, in seconds.
        clock: Supplies the times for the watchdog.
        now: Returns the wall-clock time as RFC 3339 in UTC.
    """

    client: KubeClient
    cache: Cache
    watchdog: Watchdog
    session: aiohttp.ClientSession
    images: Images
    grants: Grants
    sync_poll_s: float
    clock: Clock
    now: Callable[[], str]

    async def reconcile(self, request: Pass) -> float | None:
        """Make one pass over one custom resource.

        Returns:
            Seconds until the next pass is due, None if none is due before the resync.

        Raises:
            IncompleteError: An object could not be applied or pruned; the status says which and why.
            ApiError: The status could not be written.
        """
        document = self.cache.resource(request.key)
        if document is None:
            return None
        report = await self._ask_index(request.key, document)
        pools = await read_pools(self.client, document) if request.key.kind == names.PREFIX_INDEX else None
        observed = Observed(
            document=document,
            children=self.cache.children(request.key),
            images=self.images,
            grants=self.grants,
            now=self.now(),
            sync=report,
            pool=pools,
            enforce=request.enforce,
        )
        plan = reconcile(observed)
        problems = await self._carry_out(plan, document)
        changed = bool(plan.objects or plan.prune or problems)
        if pools is not None and (plan.pool is not None or plan.prune_pools):
            pools, changed = await change_pools(self.client, plan, pools), True
        final = plan
        if changed:
            children = self.cache.children(request.key)
            final = reconcile(replace(observed, children=children, pool=pools, problems=problems, enforce=False))
        if final.status is not None:
            await self._write_status(request.key, document, final.status)
        await self._post_events(document, [*plan.repairs, *final.events])
        if problems:
            raise IncompleteError(f"{problems[0].reason}: {problems[0].message}")
        return self._next_pass_s(request.key, report)

    async def sweep(self, indexes: set[tuple[str, str]]) -> int:
        """Delete objects that belong to a PrefixIndex of another namespace which is not among `indexes`.

        Args:
            indexes: (namespace, name) of every PrefixIndex that exists.

        Returns:
            Number of deleted objects.
        """
        orphans = find_orphans(self.cache.objects(), indexes)
        for reference in orphans:
            await self._delete(reference)
        return len(orphans)

    def _next_pass_s(self, key: Key, report: SyncReport | None) -> float | None:
        if key.kind != names.PREFIX_INDEX:
            return None
        synced = report is not None and report.error is None and 0 < report.total == report.live
        return self.sync_poll_s if synced else min(_UNSYNCED_POLL_S, self.sync_poll_s)

    async def _ask_index(self, key: Key, document: Mapping[str, Any]) -> SyncReport | None:
        """Return what the index pods report; None for a MockEngine, and for an index without a ready pod."""
        if key.kind != names.PREFIX_INDEX:
            return None
        selector = {names.LABEL_NAME: "prefix-index", names.LABEL_INDEX: key.name}
        try:
            pods = await self.client.list_pods(key.namespace, selector_text(selector))
        except ApiError as error:
            return SyncReport(error=f"the index pods cannot be listed: {error}")
        addresses = ready_addresses(pods)
        tls = serves_tls(document)
        return await ask_index(self.session, addresses, tls=tls) if addresses else None

    async def _carry_out(self, plan: Plan, document: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Apply and prune everything in `plan`, also after a failure, and return the failures."""
        problems = []
        for obj in plan.objects:
            try:
                await self._apply(obj, document)
            except ApiError as error:
                problems.append(_problem(reference_of(obj), error))
        for reference in plan.prune:
            try:
                await self._delete(reference)
            except ApiError as error:
                problems.append(_problem(reference, error))
        if plan.repairs:
            REPAIRS.inc(len(plan.repairs))
        return tuple(problems)

    async def _apply(self, obj: KubeObject, document: Mapping[str, Any]) -> None:
        """Apply one object; raise `ConflictError` if an object of that name belongs to someone else."""
        reference = reference_of(obj)
        present = self.cache.object(reference) or await self.client.get(reference)
        if present is not None and not is_owned(document, present):
            raise ConflictError(409, f"{reference} exists and does not belong to this {document['kind']}")
        live = await self.client.apply(obj)
        self.cache.put_object(live)
        self.watchdog.expect(live, self.clock.monotonic())
        OBJECTS_APPLIED.labels(reference.kind).inc()

    async def _delete(self, reference: Reference) -> None:
        await self.client.delete(reference)
        self.cache.forget_reference(reference)
        OBJECTS_PRUNED.labels(reference.kind).inc()

    async def _write_status(self, key: Key, document: Mapping[str, Any], status: dict[str, Any]) -> None:
        try:
            written = await self.client.apply_status(document, status)
        except (NotFoundError, ConflictError):
            # The resource was deleted, and perhaps created anew. No further pass may use the cached copy; the watch
            # delivers the successor.
            self.cache.drop_resource(key, document["metadata"]["uid"])
            return
        self.cache.put_resource(written)
        self.watchdog.expect(written, self.clock.monotonic())

    async def _post_events(self, document: Mapping[str, Any], events: list[KubeEvent]) -> None:
        """Post Kubernetes Events. A failure is logged and has no other consequence."""
        for event in events:
            try:
                await self.client.create(_build_event(document, event, self.now()))
            except ApiError as error:
                _log.warning("event_not_posted", reason=event.reason, error=str(error))
            else:
                EVENTS_POSTED.labels(event.type).inc()


def _problem(reference: Reference, error: ApiError) -> Problem:
    match error:
        case ForbiddenError():
            reason = "Forbidden"
        case ConflictError():
            reason = "NameTaken"
        case RefusedError():
            reason = "Refused"
        case UnavailableError():
            reason = "ApiUnavailable"
        case _:
            reason = "ApplyFailed"
    return Problem(reason, f"{reference}: {error}")


def _build_event(document: Mapping[str, Any], event: KubeEvent, now: str) -> KubeObject:
    metadata = document["metadata"]
    version = metadata.get("resourceVersion", "")
    identity = "\0".join((metadata["uid"], version, event.type, event.reason, event.message))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": version,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": f"{names.GROUP}/operator",
        "reportingInstance": names.FIELD_MANAGER,
    }
