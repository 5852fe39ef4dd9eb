"""The processes under test: mock engines that can be killed and come back at their address, an index, and a router."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from kvsync_testkit.ports import free_ports
from kvsync_testkit.processes import HttpPort
from kvsync_testkit.waiting import wait_until

MODEL = "soak-model"
BLOCK_TOKENS = 16
ENGINE_BLOCKS = 2048


class Server(HttpPort):
    """A module that serves HTTP, at one port for all its lives."""

    def __init__(self, name: str, module: str, flags: list[str], health: str, logs: Path) -> None:
        super().__init__(free_ports(1)[0])
        self.name = name
        self.lives = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(self.port), *flags]
        self._health = health
        self._log = logs / f"{name}.log"

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with self._log.open("ab") as log:
            # In a session of its own, so that Ctrl-C reaches the run alone, which then ends its processes in order.
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        self.lives += 1
        self.ready(self._health)

    def _answers(self, path: str) -> bool:
        if not self.running:
            raise AssertionError(f"{self.name} ended; see {self._log}")
        return super()._answers(path)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(30)

    def stop(self) -> None:
        """SIGTERM, also to a process that is stopped, and SIGKILL if that does not help."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        if self.process is not None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


class Engine(Server):
    """A mock engine with its debug endpoints and its fault plane."""

    def __init__(self, number: int, logs: Path) -> None:
        self.events, self.replay = free_ports(2)
        config = {
            "enable_kv_cache_events": True,
            "endpoint": f"tcp://*:{self.events}",
            "replay_endpoint": f"tcp://*:{self.replay}",
        }
        flags = ["--kv-events-config", json.dumps(config), "--served-model-name", MODEL, "--mock-debug"]
        flags += ["--mock-latency", "none", "--enable-prompt-tokens-details"]
        flags += ["--num-gpu-blocks-override", str(ENGINE_BLOCKS), "--max-model-len", "4096"]
        super().__init__(f"engine-{number}", "kvsync_mockpod", flags, "/health", logs)

    def entry(self) -> dict[str, str]:
        """Its entry in the publishers file."""
        return {
            "name": self.name,
            "model": MODEL,
            "endpoint": f"tcp://127.0.0.1:{self.events}",
            "replay_endpoint": f"tcp://127.0.0.1:{self.replay}",
            "http_url": self.url,
            "debug_url": self.url,
        }


class Plant:
    """All processes of a run. Engines join and leave through the publishers file, which index and router follow."""

    def __init__(self, engines: int, out: Path) -> None:
        logs = out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.glob("*.log"):
            old.unlink()
        self.engines = [Engine(number, logs) for number in range(engines)]
        self.members = list(self.engines)
        self._file = out / "publishers.yaml"
        publishers = ["--publishers", str(self._file), "--stale-after", "5s"]
        self.index = Server("index", "kvsync_indexer.main", publishers, "/healthz", logs)
        router = ["--index-url", self.index.url, "--publishers", str(self._file), "--policy", "kv"]
        self.router = Server("router", "kvsync_router.proxy.main", router, "/healthz", logs)

    @property
    def servers(self) -> list[Server]:
        return [*self.engines, self.index, self.router]

    def start(self) -> None:
        self.write_members()
        for server in self.servers:
            server.start()
        self.wait_live(60.0)

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()

    def write_members(self) -> None:
        """Make the publishers file name the members, in one step."""
        part = self._file.with_suffix(".part")
        part.write_text(yaml.safe_dump([engine.entry() for engine in self.members]))
        part.replace(self._file)

    def heal(self) -> None:
        """End every fault: processes run, fault plans are empty, and every engine is a member."""
        for server in self.servers:
            server.send(signal.SIGCONT)
        for server in (*self.engines, self.index):
            if not server.running:
                server.start()
        for engine in self.engines:
            engine.ok("DELETE", "/debug/faults")
        if len(self.members) < len(self.engines):
            self.members = list(self.engines)
            self.write_members()

    def wait_live(self, deadline_s: float) -> None:
        """Wait until the index trusts exactly the members.

        Raises:
            DeadlineError: it did not in time.
        """
        wanted = {engine.name: "live" for engine in self.members}

        def states() -> bool:
            rows = self.index.ok("GET", "/v1/publishers")["publishers"]
            found = {row["name"]: row["state"] for row in rows}
            if found != wanted:
                raise AssertionError(f"publishers are {found}")
            return True

        wait_until(
            "the index trusts every engine",
            states,
            deadline_s=deadline_s,
            every_s=0.1,
            retry_on=(AssertionError, OSError),
        )


@contextlib.contextmanager
def running(plant: Plant):
    """Start the processes, and stop them at the end, whatever happens."""
    try:
        plant.start()
        yield plant
    finally:
        plant.stop()
