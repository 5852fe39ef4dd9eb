"""The processes of a demo: the pods of its resources, and a router in front of them."""

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
from kvsync_indexer.client import AsyncIndexClient, IndexClientError
from kvsync_operator.models.document import Resource

MATCH_TIMEOUT_S = 2.0
"""Longer than the router's default, so that a busy laptop does not make the router fall back to load."""


def wanted_ports(network: Network, engines: int) -> Iterator[tuple[str, int]]:
    """Every (host, port) of a stack with that many engines."""
    for number in range(engines):
        yield from ((network.pod(number), port) for port in (HTTP_PORT, EVENTS_PORT, REPLAY_PORT))
    yield network.pod(engines), INDEX_PORT
    yield network.control, ROUTER_PORT


class Stack:
    """The processes of one run."""

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
        """Start everything, and wait until every engine is live in the index and in the rotation of the router.

        Raises StartFailedError.
        """
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
        """Start a killed engine again, with the same address."""
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
        followed = await self._followed()
        routed = await self._routed()
        states = {pod.name: followed.get(pod.name, "unknown") for pod in self.engines}
        missing = [f"{name} is {state} in the index" for name, state in states.items() if state != "live"]
        absent = [pod.name for pod in self.engines if pod.name not in routed]
        return missing + [f"{name} is not in the router's rotation" for name in absent]

    async def _followed(self) -> dict[str, str]:
        """State of every publisher in the index; none while the index does not answer."""
        try:
            return {
                row.name: row.state
                for row in await AsyncIndexClient(self.index_url, session=lambda: self._session).publishers()
            }
        except IndexClientError:
            return {}

    async def _routed(self) -> set[str]:
        """The endpoints in the rotation of the router; none while the router does not answer."""
        url, timeout = f"{self.router_url}/v1/endpoints", aiohttp.ClientTimeout(total=5)
        try:
            async with self._session.get(url, timeout=timeout) as response:
                return {row["name"] for row in (await response.json())["endpoints"] if row["healthy"]}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError):
            return set()
