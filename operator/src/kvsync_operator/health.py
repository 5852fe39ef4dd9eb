"""The endpoints /healthz, /readyz and /metrics.

The event loop that reconciles also serves them, so a blocked loop makes the probes time out. Liveness fails when a pass
is due or running for too long, and when a watch has gone silent. It does not fail while the API server is unreachable,
because a restart of the operator would not help.
"""

from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kvsync_operator import names
from kvsync_operator.cache import Cache
from kvsync_operator.clock import Clock
from kvsync_operator.controller import Controller
from kvsync_operator.metrics import RESOURCES, WATCH_SILENT
from kvsync_operator.watchdog import Watchdog


@dataclass(slots=True)
class Health:
    """Decides whether the operator is alive and ready.

    Args:
        controller: Reports how long passes have been due or running.
        watchdog: Reports silent watches.
        cache: Counted for the metrics.
        stuck_after_s: Longest time that a pass may be due or running, in seconds.
        clock: Supplies the time to the watchdog.
        ready: Whether every kind has been listed, set by the operator.
    """

    controller: Controller
    watchdog: Watchdog
    cache: Cache
    stuck_after_s: float
    clock: Clock
    ready: bool = False

    def failures(self) -> list[str]:
        """Return the reasons for which the liveness probe fails; empty if the operator is alive."""
        found = []
        stats = self.controller.stats()
        if stats.longest_s > self.stuck_after_s:
            found.append(f"a pass has been due or running for {stats.longest_s:.0f} s")
        silent = self.watchdog.silent(self.clock.monotonic())
        for kind in WATCHED_KINDS:
            WATCH_SILENT.labels(kind).set(kind in silent)
        for kind, seconds in sorted(silent.items()):
            found.append(f"the watch on {kind} has been silent for {seconds:.0f} s")
        return found

    def count_resources(self) -> None:
        """Set the gauge of custom resources from the cache."""
        counts = {(kind, ready): 0 for kind in names.PLURALS for ready in ("True", "False", "Unknown")}
        for key in self.cache.keys():  # noqa: SIM118  (Cache is not a mapping)
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
    """Start the HTTP server.

    Args:
        health: Answers the probes.
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose.

    Returns:
        The runner, which the caller must clean up, and the port.
    """

    async def healthz(_: web.Request) -> web.Response:
        failures = health.failures()
        return web.Response(status=503 if failures else 200, text="\n".join(failures) or "ok")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(
            status=200 if health.ready else 503, text="ok" if health.ready else "the watches have not started"
        )

    async def metrics(_: web.Request) -> web.Response:
        health.failures()
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
