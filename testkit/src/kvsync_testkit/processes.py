"""Real processes on loopback, for tests that cross process borders: mock engines, indexes and routers.

Nothing of the programs under test is imported. They are started as modules of the interpreter that runs the test, and
asked over HTTP.
"""

import contextlib
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, Self

from kvsync_testkit.ports import free_ports
from kvsync_testkit.waiting import wait_until

MODEL = "test-model"
READY_S = 60.0
STOP_S = 30.0


class HttpPort:
    """A port of 127.0.0.1 that answers HTTP."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, HTTPMessage, bytes]:
        """(status, headers, body) of one request; a body that is not bytes is sent as JSON. Raises OSError."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=STOP_S)) as connection:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def ok(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
        """The decoded JSON, or the text, of a request that must succeed."""
        status, headers, data = self.ask(method, path, body)
        if status != 200:
            raise AssertionError(f"{method} {path}: status {status}: {data[:500]!r}")
        return json.loads(data) if headers.get_content_type() == "application/json" else data.decode()

    def ready(self, path: str) -> Self:
        """Wait until GET `path` answers 200."""
        wait_until(f"{self.url}{path} answers", lambda: self._answers(path), deadline_s=READY_S, retry_on=(OSError,))
        return self

    def _answers(self, path: str) -> bool:
        return self.ask("GET", path)[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """One sample of `/metrics` that has these labels; 0.0 if there is none."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.ok("GET", "/metrics").splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and wanted <= set((found[1] or "").split(",")):
                return float(found[2])
        return 0.0


class Process(HttpPort):
    """A Python module that takes `--host` and `--port`, as a running process."""

    def __init__(self, module: str, *flags: object, port: int | None = None, log: Path | None = None) -> None:
        super().__init__(port or free_ports(1)[0])
        command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(self.port), *map(str, flags)]
        self._log = log
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(log.open("wb")) if log is not None else subprocess.DEVNULL
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def logged(self) -> list[str]:
        """The lines of its log so far."""
        return [] if self._log is None else self._log.read_text().splitlines()

    def _answers(self, path: str) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the process ended with code {self.process.returncode}")
        return super()._answers(path)

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(STOP_S)


class MockEngine(Process):
    """A mock engine that publishes its events."""

    def __init__(self, *flags: object, model: str = MODEL) -> None:
        self.model = model
        self.events, self.replay = free_ports(2)
        config = {
            "enable_kv_cache_events": True,
            "endpoint": f"tcp://*:{self.events}",
            "replay_endpoint": f"tcp://*:{self.replay}",
        }
        flags = ("--mock-latency", "none", "--served-model-name", model, "--mock-debug", *flags)
        super().__init__("kvsync_mockpod", "--kv-events-config", json.dumps(config), *flags)

    def entry(self, name: str, **more: object) -> dict[str, object]:
        """Its entry in a publishers file."""
        return {
            "name": name,
            "model": self.model,
            "endpoint": f"tcp://127.0.0.1:{self.events}",
            "replay_endpoint": f"tcp://127.0.0.1:{self.replay}",
            "http_url": self.url,
            "debug_url": self.url,
            **more,
        }


@contextlib.contextmanager
def stopping(*processes: Process) -> Iterator[None]:
    """Stop the processes at the end of the block, the last one first."""
    try:
        yield
    finally:
        for each in reversed(processes):
            each.stop()
