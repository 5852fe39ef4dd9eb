"""A demo's processes: the pods of its resources, and a router in front of them."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from kvsync.errors import StartFailedError
from kvsync.local.addresses import EVENTS_PORT, HTTP_PORT, INDEX_PORT, REPLAY_PORT, ROUTER_PORT, Network
from kvsync.local.cluster import LocalCluster
from kvsync.local.pods import LocalPod, plan_pods
from kvsync.local.process import Process, Spec, executable
from kvsync.local.supervisor import POLL_S, START_DEADLINE_S, Supervisor, wait_http
from kvsync_operator.models.document import Resource

MATCH_TIMEOUT_S = 2.0
"""Longer than the router's default: a laptop with two busy cores is no reason to route without the index."""


def wanted_ports(network: Network, engines: int) -> Iterator[tuple[str, int]]:
    """Every address and port of a stack with so many engines."""
    for number in range(engines):
        yield from ((network.pod(number), port) for port in (HTTP_PORT, EVENTS_PORT, REPLAY_PORT))
    yield network.pod(engines), INDEX_PORT
    yield network.control, ROUTER_PORT


class Stack:
    """One run's processes."""

    def __init__(
        self,
        resources: Sequence[Resource[Any]],
        supervisor: Supervisor,
        network: Network,
        folder: Path,
        session: aiohttp.ClientSession,
    ) -> None:
        pods = plan_pods(resources, network, folder)
        self.supervisor = supervisor
        self.engines = [pod for pod in pods if pod.role == "engine"]
        self.index_url = next(pod.http_url for pod in pods if pod.role == "index")
        self.router_url = f"http://{network.control}:{ROUTER_PORT}"
        self._cluster = LocalCluster(pods, supervisor, session)
        self._router_host = network.control
        self._router_log = folder / "logs" / "router.log"
        self._session = session

    async def start(self, policy: str, seed: int) -> None:
        """Start everything at once; return when every engine is live in the index and in the router's rotation."""
        router = self._start_router(policy, seed)
        await self._cluster.start()
        await wait_http(self._session, router, f"{self.router_url}/readyz")
        end = time.monotonic() + START_DEADLINE_S
        while missing := await self._not_joined():
            self.supervisor.check()
            if time.monotonic() > end:
                raise StartFailedError(f"not ready after {START_DEADLINE_S:.0f} s: {'; '.join(missing)}")
            await asyncio.sleep(POLL_S)

    async def restart_engine(self, pod: LocalPod) -> None:
        """Start a killed engine again, at its address."""
        self.supervisor[pod.name].start()
        await self._cluster.wait_ready(pod)

    def _start_router(self, policy: str, seed: int) -> Process:
        argv = (
            executable("kvsync-router"),
            *("--host", self._router_host, "--port", str(ROUTER_PORT)),
            *("--index-url", self.index_url, "--policy", policy, "--seed", str(seed)),
            *("--match-timeout", str(MATCH_TIMEOUT_S)),
        )
        return self.supervisor.start(Spec("router", argv, self._router_log))

    async def _not_joined(self) -> list[str]:
        rows = {row["name"]: row for row in await self._json(f"{self.index_url}/v1/publishers", "publishers")}
        routed = {row["name"]: row for row in await self._json(f"{self.router_url}/v1/endpoints", "endpoints")}
        states = {pod.name: str(rows.get(pod.name, {}).get("state", "unknown")) for pod in self.engines}
        missing = [f"{name} is {state} in the index" for name, state in states.items() if state != "live"]
        absent = [pod.name for pod in self.engines if not routed.get(pod.name, {}).get("healthy", False)]
        return missing + [f"{name} is not in the router's rotation" for name in absent]

    async def _json(self, url: str, field: str) -> list[dict[str, Any]]:
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
                rows: list[dict[str, Any]] = (await response.json())[field]
                return rows
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError):
            return []
