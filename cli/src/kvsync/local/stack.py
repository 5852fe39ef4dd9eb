"""Engines, index and router of one local run: their command lines, their addresses, their readiness."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from kvsync.errors import StartFailedError
from kvsync.local.addresses import EVENTS_PORT, HTTP_PORT, INDEX_PORT, REPLAY_PORT, ROUTER_PORT, Network
from kvsync.local.process import Process, Spec, executable
from kvsync.local.supervisor import POLL_S, START_DEADLINE_S, Supervisor, wait_http

MODEL = "kvsync/demo"
BLOCK_SIZE = 16
CORE_CHOICES = ("auto", "python", "native")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What every engine of a run is started with."""

    blocks: int
    max_model_len: int
    seed: int
    latency: str = "none"
    time_scale: float = 1.0
    max_batched_tokens: int = 2048
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """One engine of a local run."""

    name: str
    host: str

    @property
    def http_url(self) -> str:
        """Where it serves OpenAI requests."""
        return f"http://{self.host}:{HTTP_PORT}"

    @property
    def endpoint(self) -> str:
        """Where its events are."""
        return f"tcp://{self.host}:{EVENTS_PORT}"

    @property
    def replay_endpoint(self) -> str:
        """Where they are replayed."""
        return f"tcp://{self.host}:{REPLAY_PORT}"

    @property
    def bind_endpoint(self) -> str:
        """The events endpoint as the pod must be told it.

        By vLLM's rule a publisher binds only to wildcards and to IPv6; `*` would take the port on every address. The
        pod's own address written as IPv6 is bound, and it is the same socket address.
        """
        return f"tcp://[::ffff:{self.host}]:{EVENTS_PORT}"

    def publisher(self) -> dict[str, str]:
        """Its entry in a publishers file."""
        return {
            "name": self.name,
            "model": MODEL,
            "endpoint": self.endpoint,
            "replay_endpoint": self.replay_endpoint,
            "http_url": self.http_url,
            "debug_url": self.http_url,
        }


class Stack:
    """One run's processes."""

    def __init__(self, supervisor: Supervisor, network: Network, folder: Path, session: aiohttp.ClientSession) -> None:
        self.supervisor = supervisor
        self.network = network
        self.folder = folder
        self.pods: list[Pod] = []
        self._session = session

    @property
    def index_url(self) -> str:
        """Where the index answers."""
        return f"http://{self.network.control}:{INDEX_PORT}"

    @property
    def router_url(self) -> str:
        """Where the router answers."""
        return f"http://{self.network.control}:{ROUTER_PORT}"

    async def start(self, engines: int, settings: EngineSettings, *, core: str, policy: str, seed: int) -> None:
        """Start everything at once; return when every engine is live in the index and in the router's rotation."""
        self.pods = [Pod(f"engine-{number}", self.network.pod(number)) for number in range(engines)]
        started = [self.supervisor.start(self._engine(pod, number, settings)) for number, pod in enumerate(self.pods)]
        index = self._start_index(core)
        router = self._start_router(policy, seed)
        for process, pod in zip(started, self.pods, strict=True):
            await self._wait(process, f"{pod.http_url}/health")
        await self._wait(index, f"{self.index_url}/readyz")
        await self._wait(router, f"{self.router_url}/readyz")
        await self._wait_joined()

    async def _wait_joined(self) -> None:
        """Wait until index and router see all engines."""
        end = time.monotonic() + START_DEADLINE_S
        while True:
            self.supervisor.check()
            missing = await self._not_joined()
            if not missing:
                return
            if time.monotonic() > end:
                raise StartFailedError(f"not ready after {START_DEADLINE_S:.0f} s: {'; '.join(missing)}")
            await asyncio.sleep(POLL_S)

    async def _not_joined(self) -> list[str]:
        rows = {row["name"]: row for row in await self._json(f"{self.index_url}/v1/publishers", "publishers")}
        routed = {row["name"]: row for row in await self._json(f"{self.router_url}/v1/endpoints", "endpoints")}
        states = {pod.name: str(rows.get(pod.name, {}).get("state", "unknown")) for pod in self.pods}
        missing = [f"{name} is {state} in the index" for name, state in states.items() if state != "live"]
        absent = [pod.name for pod in self.pods if not routed.get(pod.name, {}).get("healthy", False)]
        return missing + [f"{name} is not in the router's rotation" for name in absent]

    async def _json(self, url: str, field: str) -> list[dict[str, Any]]:
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
                rows: list[dict[str, Any]] = (await response.json())[field]
                return rows
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError):
            return []

    async def restart_engine(self, pod: Pod) -> None:
        """Start a killed engine again, at its address."""
        process = self.supervisor[pod.name]
        process.start()
        await self._wait(process, f"{pod.http_url}/health")

    def _start_index(self, core: str) -> Process:
        publishers = self.folder / "publishers.yaml"
        publishers.parent.mkdir(parents=True, exist_ok=True)
        publishers.write_text(yaml.safe_dump([pod.publisher() for pod in self.pods], sort_keys=False))
        argv = (
            executable("kvsync-indexer"),
            *("--host", self.network.control, "--port", str(INDEX_PORT)),
            *("--publishers", str(publishers), "--core", core),
        )
        return self.supervisor.start(Spec("index", argv, self._log("index")))

    def _start_router(self, policy: str, seed: int) -> Process:
        argv = (
            executable("kvsync-router"),
            *("--host", self.network.control, "--port", str(ROUTER_PORT)),
            *("--index-url", self.index_url, "--policy", policy, "--seed", str(seed)),
        )
        return self.supervisor.start(Spec("router", argv, self._log("router")))

    async def _wait(self, process: Process, url: str) -> None:
        await wait_http(self._session, process, url)

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _engine(self, pod: Pod, number: int, settings: EngineSettings) -> Spec:
        events = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": pod.bind_endpoint,
            "replay_endpoint": pod.replay_endpoint,
        }
        argv = (
            executable("kvsync-mockpod"),
            *("--model", MODEL, "--host", pod.host, "--port", str(HTTP_PORT)),
            *("--block-size", str(BLOCK_SIZE), "--num-gpu-blocks-override", str(settings.blocks)),
            *("--max-model-len", str(settings.max_model_len)),
            *("--max-num-batched-tokens", str(settings.max_batched_tokens)),
            *("--kv-events-config", json.dumps(events)),
            *("--mock-latency", settings.latency, "--mock-time-scale", str(settings.time_scale)),
            *("--mock-seed", str(settings.seed + number)),
            *("--mock-debug", "--enable-prompt-tokens-details", *settings.extra),
        )
        return Spec(pod.name, argv, self._log(pod.name), {"PYTHONHASHSEED": "0"})
