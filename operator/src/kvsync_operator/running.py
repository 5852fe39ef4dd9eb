"""The operator process: builds the parts, connects them, runs kopf, and closes everything in order."""

import asyncio
import contextlib
import datetime as dt
import random
from collections.abc import AsyncIterator

import aiohttp
import kopf
import kubernetes
import structlog

from kvsync_operator import names
from kvsync_operator.cache import Cache, Key
from kvsync_operator.client import KubeClient
from kvsync_operator.clock import Clock, SystemClock
from kvsync_operator.controller import Controller
from kvsync_operator.errors import ApiError
from kvsync_operator.handlers import WatchHandlers, build_registry
from kvsync_operator.health import Health, start_server
from kvsync_operator.reconcile.types import Reference
from kvsync_operator.reconciler import Reconciler
from kvsync_operator.settings import OperatorSettings
from kvsync_operator.watchdog import Watchdog

_log = structlog.get_logger()

_CRD_WAIT_S = 5.0
"""How often the API server is asked whether the CRDs are installed, in seconds."""


def _utc_now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Operator:
    """The parts of a running operator.

    Args:
        settings: Settings of the process.
        client: Access to the API server; the caller closes it.
        session: Used for requests to index pods; the caller closes it.
        clock: Used for every wait.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        client: KubeClient,
        session: aiohttp.ClientSession,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.settings = settings
        self.client = client
        self.cache = Cache()
        self.watchdog = Watchdog(2 * settings.audit_s + 10, frozenset(settings.namespaces))
        self.reconciler = Reconciler(
            client=client,
            cache=self.cache,
            watchdog=self.watchdog,
            session=session,
            images=settings.images,
            grants=settings.grants,
            sync_poll_s=settings.sync_poll_s,
            clock=self.clock,
            now=_utc_now,
        )
        self.controller = Controller(self.reconciler.reconcile, settings.resync_s, random.Random(), self.clock)
        self.health = Health(self.controller, self.watchdog, self.cache, settings.stuck_after_s, self.clock)
        self.http_port = 0
        self._missing: set[Key] = set()

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Reconcile until `stop` is set, or until SIGTERM or SIGINT if `stop` is None."""
        runner, self.http_port = await start_server(self.health, self.settings.http_host, self.settings.http_port)
        _log.info("serving", port=self.http_port, namespaces=list(self.settings.namespaces) or "all")
        audit: asyncio.Task[None] | None = None
        try:
            await self._wait_for_crds()
            audit = asyncio.create_task(self._audit_forever(), name="audit")
            handlers = WatchHandlers(self.cache, self.controller, self.watchdog, self.reconciler)
            ready = asyncio.Event()
            marker = asyncio.create_task(self._mark_ready(ready), name="ready marker")
            try:
                await kopf.operator(
                    registry=build_registry(handlers, self.settings),
                    standalone=True,
                    identity=names.FIELD_MANAGER,  # type: ignore[arg-type]  # the default looks up the user, which has no name in a pod
                    clusterwide=self.settings.all_namespaces,
                    namespaces=self.settings.namespaces,
                    ready_flag=ready,
                    stop_flag=stop,
                )
            finally:
                marker.cancel()
        finally:
            self.health.ready = False
            if audit is not None:
                audit.cancel()
                await asyncio.gather(audit, return_exceptions=True)
            await self.controller.close()
            await runner.cleanup()

    async def _mark_ready(self, ready: asyncio.Event) -> None:
        await ready.wait()
        self.health.ready = True

    async def _wait_for_crds(self) -> None:
        """Wait until the CRDs are installed, because kopf cannot watch without them; log the reason once."""
        logged = False
        while True:
            try:
                missing = sorted(set(names.PLURALS) - await self.client.served_kinds())
                reason = f"the API server does not know {', '.join(missing)}: install the CRDs" if missing else ""
            except ApiError as error:
                reason = f"the API server does not answer: {error}"
            if not reason:
                return
            if not logged:
                _log.warning("waiting_for_crds", reason=reason)
                logged = True
            await self.clock.sleep(_CRD_WAIT_S)

    async def _audit_forever(self) -> None:
        while True:
            await self.clock.sleep(self.settings.audit_s)
            try:
                await self.audit()
            except ApiError as error:
                _log.warning("audit_failed", error=str(error))

    async def audit(self) -> None:
        """List the custom resources, compare the list with what the watches delivered, and sweep orphans.

        A cached resource that two consecutive audits do not list was deleted without the watch delivering it, and is
        forgotten.

        Raises:
            ApiError: A list failed; nothing was changed.
        """
        listed: set[Key] = set()
        namespaces: tuple[str | None, ...] = self.settings.namespaces or (None,)
        for kind in names.PLURALS:
            for namespace in namespaces:
                for metadata in await self.client.list_metadata(names.API_VERSION, kind, namespace):
                    document = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata}
                    self.watchdog.expect(document, self.clock.monotonic())
                    listed.add(Key(kind, metadata["namespace"], metadata["name"]))
        missing = {key for key in self.cache.keys() if key not in listed}  # noqa: SIM118
        for key in missing & self._missing:
            _log.warning("missed_deletion", kind=key.kind, namespace=key.namespace, name=key.name)
            self.cache.drop_resource(key)
            self.controller.forget(key)
            self.watchdog.forget([Reference(names.API_VERSION, key.kind, key.namespace, key.name)])
        self._missing = missing
        if self.health.ready:
            await self.reconciler.sweep({(key.namespace, key.name) for key in listed if key.kind == names.PREFIX_INDEX})


@contextlib.asynccontextmanager
async def connected(settings: OperatorSettings, api: kubernetes.client.ApiClient) -> AsyncIterator[Operator]:
    """Yield an operator that uses `api`, and close its client and its session afterwards."""
    client = KubeClient(api, settings.write_slots, settings.request_timeout_s)
    try:
        async with aiohttp.ClientSession() as session:
            yield Operator(settings, client, session)
    finally:
        client.close()


async def run_operator(settings: OperatorSettings, api: kubernetes.client.ApiClient) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    async with connected(settings, api) as operator:
        await operator.run()
