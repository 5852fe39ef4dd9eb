"""The operator's passes: observe, plan, carry out, write the status once, announce."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import structlog

from kvsync_operator import names
from kvsync_operator.cache import Cache, Key
from kvsync_operator.client import KubeClient
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
from kvsync_operator.metrics import EVENTS_POSTED, OBJECTS_APPLIED, OBJECTS_PRUNED, REPAIRS
from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import KubeObject, selector_text
from kvsync_operator.publishers import ask_index, ready_addresses
from kvsync_operator.reconcile import (
    Announcement,
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

__all__ = ["Service"]

log = structlog.get_logger()

_SYNC_SOON_S = 2.0
"""How soon an index that is not in sync is asked again."""


@dataclass(slots=True)
class Service:
    """Carries out passes.

    Args:
        client: the API.
        cache: what the watches have shown.
        watchdog: is told what the watches have to bring.
        session: for asking index pods.
        images: default images.
        sync_poll_s: how often an index in sync is asked.
        clock: monotonic seconds.
        now: the wall clock as RFC 3339 in UTC.
    """

    client: KubeClient
    cache: Cache
    watchdog: Watchdog
    session: aiohttp.ClientSession
    images: Images
    sync_poll_s: float
    clock: Callable[[], float]
    now: Callable[[], str]
    _reports: dict[Key, SyncReport] = field(default_factory=dict)

    async def make_pass(self, pass_: Pass) -> float | None:
        """One pass over one custom resource; seconds until it wants to be looked at again.

        Raises:
            IncompleteError: something is missing still; the status says what.
            ApiError: the status could not be written.
        """
        document = self.cache.resource(pass_.key)
        if document is None:
            return None
        report = await self._ask(pass_.key)
        observed = Observed(
            document=document,
            children=self.cache.children(pass_.key),
            images=self.images,
            now=self.now(),
            sync=report,
            enforce=pass_.enforce,
        )
        plan = reconcile(observed)
        problems = await self._carry_out(plan, document)
        final = plan
        if plan.objects or plan.prune or problems:
            children = self.cache.children(pass_.key)
            final = reconcile(replace(observed, children=children, problems=problems, enforce=False))
        if final.status is not None:
            await self._write_status(pass_.key, document, final.status)
        await self._announce(document, [*plan.repairs, *final.events])
        if problems:
            raise IncompleteError(f"{problems[0].reason}: {problems[0].message}")
        return self._again(pass_.key, report)

    async def sweep(self, indexes: set[tuple[str, str]]) -> int:
        """Delete what belongs to a PrefixIndex of another namespace that is not among `indexes`; how many."""
        orphans = find_orphans(self.cache.objects(), indexes)
        for reference in orphans:
            await self._delete(reference)
        return len(orphans)

    def forget(self, key: Key) -> None:
        """A custom resource is gone."""
        self._reports.pop(key, None)

    def _again(self, key: Key, report: SyncReport | None) -> float | None:
        if key.kind != names.PREFIX_INDEX:
            return None
        synced = report is not None and report.error is None and 0 < report.total == report.live
        return self.sync_poll_s if synced else min(_SYNC_SOON_S, self.sync_poll_s)

    async def _ask(self, key: Key) -> SyncReport | None:
        """What the index says now; None for a MockEngine and for an index without a ready pod."""
        if key.kind != names.PREFIX_INDEX:
            return None
        selector = {names.LABEL_NAME: "prefix-index", names.LABEL_INDEX: key.name}
        try:
            pods = await self.client.list_pods(key.namespace, selector_text(selector))
        except ApiError as error:
            return SyncReport(error=f"index pods cannot be listed: {error}")
        addresses = ready_addresses(pods)
        return await ask_index(self.session, addresses) if addresses else None

    async def _carry_out(self, plan: Plan, document: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Apply and prune; what fails does not keep the rest from being done."""
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
        """Apply one object; an object of that name that is not ours is never touched."""
        reference = reference_of(obj)
        if self.cache.object(reference) is None:
            live = await self.client.get(reference)
            if live is not None and not is_owned(document, live):
                raise ConflictError(409, f"{reference} exists and does not belong to this {document['kind']}")
        live = await self.client.apply(obj)
        self.cache.put_object(live)
        self.watchdog.expect(live, self.clock())
        OBJECTS_APPLIED.labels(reference.kind).inc()

    async def _delete(self, reference: Reference) -> None:
        await self.client.delete(reference)
        self.cache.forget_reference(reference)
        OBJECTS_PRUNED.labels(reference.kind).inc()

    async def _write_status(self, key: Key, document: Mapping[str, Any], status: dict[str, Any]) -> None:
        try:
            written = await self.client.apply_status(document, status)
        except (NotFoundError, ConflictError):
            # Deleted, or deleted and made again: its watch will tell. Our copy must not be worked on further.
            self.cache.drop_resource(key, document["metadata"]["uid"])
            return
        self.cache.put_resource(written)
        self.watchdog.expect(written, self.clock())

    async def _announce(self, document: Mapping[str, Any], events: list[Announcement]) -> None:
        """Post Events; losing one is logged and changes nothing."""
        for event in events:
            try:
                await self.client.create(_build_event(document, event, self.now()))
            except ApiError as error:
                log.warning("event not posted", reason=event.reason, error=str(error))
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


def _build_event(document: Mapping[str, Any], event: Announcement, now: str) -> KubeObject:
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
