"""One operator process: everything made, connected, run and closed in order."""

import asyncio
import contextlib
import datetime as dt
import random
import time
from collections.abc import AsyncIterator

import aiohttp
import kopf
import kubernetes
import structlog

from kvsync_operator import names
from kvsync_operator.cache import Cache, Key
from kvsync_operator.client import KubeClient
from kvsync_operator.controller import Controller
from kvsync_operator.errors import ApiError
from kvsync_operator.handlers import Watching, build_registry
from kvsync_operator.health import Health, start_server
from kvsync_operator.reconcile.types import Reference
from kvsync_operator.service import Service
from kvsync_operator.settings import OperatorSettings
from kvsync_operator.watchdog import Watchdog

__all__ = ["Operator", "run_operator"]

log = structlog.get_logger()

_CRD_WAIT_S = 5.0


def _utc_now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Operator:
    """The parts of a running operator. `run` returns when `stop` is set or the process is told to end."""

    def __init__(self, settings: OperatorSettings, client: KubeClient, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.client = client
        self.cache = Cache()
        self.watchdog = Watchdog(2 * settings.audit_s + 10, frozenset(settings.namespaces))
        self.service = Service(
            client=client,
            cache=self.cache,
            watchdog=self.watchdog,
            session=session,
            images=settings.images,
            sync_poll_s=settings.sync_poll_s,
            clock=time.monotonic,
            now=_utc_now,
        )
        self.controller = Controller(self.service.make_pass, settings.resync_s, random.Random(), time.monotonic)
        self.health = Health(self.controller, self.watchdog, self.cache, settings.stuck_after_s, time.monotonic)
        self.http_port = 0
        self._missing: set[Key] = set()

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Serve until told to stop."""
        runner, self.http_port = await start_server(self.health, self.settings.http_host, self.settings.http_port)
        log.info("serving", port=self.http_port, namespaces=list(self.settings.namespaces) or "all")
        audit: asyncio.Task[None] | None = None
        try:
            await self._wait_for_crds()
            audit = asyncio.create_task(self._audit_forever(), name="audit")
            watching = Watching(self.cache, self.controller, self.watchdog, self.service)
            ready = asyncio.Event()
            marker = asyncio.create_task(self._mark_ready(ready), name="ready marker")
            try:
                await kopf.operator(
                    registry=build_registry(watching, self.settings),
                    standalone=True,
                    identity=names.FIELD_MANAGER,  # type: ignore[arg-type]  # else our user is looked up, who has no name
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
        """Without the CRDs there is nothing to watch; wait for them, saying so once."""
        said = False
        while True:
            try:
                missing = sorted(set(names.PLURALS) - await self.client.served_kinds())
                reason = f"the API server does not know {', '.join(missing)}: install the CRDs" if missing else ""
            except ApiError as error:
                reason = f"the API server cannot be asked: {error}"
            if not reason:
                return
            if not said:
                log.warning("waiting", reason=reason)
                said = True
            await asyncio.sleep(_CRD_WAIT_S)

    async def _audit_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.audit_s)
            try:
                await self.audit()
            except ApiError as error:
                log.warning("audit failed", error=str(error))

    async def audit(self) -> None:
        """List the custom resources and compare with what the watches brought; sweep orphans.

        Raises:
            ApiError: the list failed; nothing was concluded.
        """
        listed: set[Key] = set()
        namespaces: tuple[str | None, ...] = self.settings.namespaces or (None,)
        for kind in names.PLURALS:
            for namespace in namespaces:
                for metadata in await self.client.list_metadata(names.API_VERSION, kind, namespace):
                    document = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata}
                    self.watchdog.expect(document, time.monotonic())
                    listed.add(Key(kind, metadata["namespace"], metadata["name"]))
        missing = {key for key in self.cache.keys() if key not in listed}  # noqa: SIM118
        for key in missing & self._missing:  # twice in a row: its deletion was missed
            log.warning("forgetting a resource whose deletion was missed", kind=key.kind, name=key.name)
            self.cache.drop_resource(key)
            self.controller.forget(key)
            self.service.forget(key)
            self.watchdog.forget([Reference(names.API_VERSION, key.kind, key.namespace, key.name)])
        self._missing = missing
        if self.health.ready:
            await self.service.sweep({(key.namespace, key.name) for key in listed if key.kind == names.PREFIX_INDEX})


@contextlib.asynccontextmanager
async def connected(settings: OperatorSettings, api: kubernetes.client.ApiClient) -> AsyncIterator[Operator]:
    """An operator over `api`, its client and session closed in the end."""
    client = KubeClient(api, settings.write_slots, settings.request_timeout_s)
    try:
        async with aiohttp.ClientSession() as session:
            yield Operator(settings, client, session)
    finally:
        client.close()


async def run_operator(settings: OperatorSettings, api: kubernetes.client.ApiClient) -> None:
    """Run until SIGTERM or SIGINT."""
    async with connected(settings, api) as operator:
        await operator.run()
