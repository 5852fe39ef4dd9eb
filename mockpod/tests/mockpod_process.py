"""A pod in a process of its own, on free ports."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from kvsync_testkit.ports import free_ports
from kvsync_testkit.processes import HttpPort

READY_S = 60.0


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "kvsync_mockpod", "--host", "127.0.0.1", *flags]


class Process(HttpPort):
    def __init__(self, *flags: str, env: dict[str, str] | None = None) -> None:
        port, self.events, self.replay = free_ports(3)
        super().__init__(port)
        config = {
            "enable_kv_cache_events": True,
            "endpoint": f"tcp://*:{self.events}",
            "replay_endpoint": f"tcp://*:{self.replay}",
        }
        self.process = subprocess.Popen(
            command("--port", str(self.port), "--kv-events-config", json.dumps(config), "--mock-debug", *flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.log: list[dict] = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == "ready":
                self.ready.set()

    def get(self, path: str) -> dict:
        return self.ok("GET", path)

    def wait(self) -> int:
        code = self.process.wait(30)
        self.reader.join(10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.process.stdout.close()
        self.process.stderr.close()


@contextlib.contextmanager
def pod_process(*flags: str, env: dict[str, str] | None = None) -> Iterator[Process]:
    """A pod that is ready; it is killed at the end if it still runs."""
    made = Process(*flags, env=env)
    try:
        assert made.ready.wait(READY_S), made.log
        yield made
    finally:
        made.close()
