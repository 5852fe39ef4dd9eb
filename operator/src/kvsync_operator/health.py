"""/healthz, /readyz and /metrics, served by the loop that does the work: when it hangs, so do they.

Liveness fails when a pass takes or waits too long, or when a watch went silent. It does not fail when the
API server is away: a restart would not bring it back, and what runs goes on running.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kvsync_operator import names
from kvsync_operator.cache import Cache
from kvsync_operator.controller import Controller
from kvsync_operator.metrics import RESOURCES, WATCH_SILENT
from kvsync_operator.watchdog import Watchdog

__all__ = ["Health", "start_server"]


@dataclass(slots=True)
class Health:
    """Whether the operator is alive and at work."""

    controller: Controller
    watchdog: Watchdog
    cache: Cache
    stuck_after_s: float
    clock: Callable[[], float]
    ready: bool = False

    def complaints(self) -> list[str]:
        """Why a restart would help; empty while all is well."""
        found = []
        stats = self.controller.stats()
        if stats.longest_s > self.stuck_after_s:
            found.append(f"a pass has been due or under way for {stats.longest_s:.0f} s")
        silent = self.watchdog.silent(self.clock())
        for kind in WATCHED_KINDS:
            WATCH_SILENT.labels(kind).set(kind in silent)
        for kind, seconds in sorted(silent.items()):
            found.append(f"the watch on {kind} has been silent for {seconds:.0f} s")
        return found

    def count_resources(self) -> None:
        """Bring the gauge of resources up to date."""
        counts = {(kind, ready): 0 for kind in names.PLURALS for ready in ("True", "False", "Unknown")}
        for key in self.cache.keys():  # noqa: SIM118  (Cache is no mapping)
            document = self.cache.resource(key) or {}
            conditions = (document.get("status") or {}).get("conditions") or ()
            ready = next((item.get("status") for item in conditions if item.get("type") == "Ready"), "Unknown")
            counts[key.kind, str(ready)] = counts.get((key.kind, str(ready)), 0) + 1
        for (kind, ready), count in counts.items():
            RESOURCES.labels(kind, ready).set(count)


WATCHED_KINDS = (
    *names.PLURALS,
    "ConfigMap",
    "Deployment",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "StatefulSet",
)


async def start_server(health: Health, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve; the runner to clean up in the end, and the port."""

    async def healthz(_: web.Request) -> web.Response:
        complaints = health.complaints()
        return web.Response(status=503 if complaints else 200, text="\n".join(complaints) or "ok")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(status=200 if health.ready else 503, text="ok" if health.ready else "not watching yet")

    async def metrics(_: web.Request) -> web.Response:
        health.complaints()
        health.count_resources()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    addresses = runner.addresses
    return runner, int(addresses[0][1])
