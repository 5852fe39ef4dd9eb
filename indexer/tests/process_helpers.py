"""Real processes on loopback: mock engines, indexes, routers. Nothing of theirs is imported."""

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys

from service_helpers import wait_for

MODEL = "test-model"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """One process with an HTTP port."""

    def __init__(self, module, *flags, port=None, log=None):
        self.port = port or free_port()
        command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(self.port), *map(str, flags)]
        self._log = log
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(log.open("wb")) if log is not None else subprocess.DEVNULL
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def logged(self):
        """Lines of its log so far."""
        return self._log.read_text().splitlines()

    def ask(self, method, path, body=None):
        """(status, headers, bytes)."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def ok(self, method, path, body=None):
        """The JSON (or text) of a request that must succeed."""
        status, headers, data = self.ask(method, path, body)
        assert status == 200, (status, data[:500])
        return json.loads(data) if headers.get_content_type() == "application/json" else data.decode()

    def ready(self, path):
        """Wait until GET `path` answers 200."""

        def answers():
            assert self.process.poll() is None, "the process ended"
            try:
                return self.ask("GET", path)[0] == 200
            except OSError:
                return False

        wait_for(answers, 60.0, f"{self.url}{path}")
        return self

    def metric(self, name, **labels):
        """One sample of /metrics; 0.0 when it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.ok("GET", "/metrics").splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and wanted <= set((found[1] or "").split(",")):
                return float(found[2])
        return 0.0

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)


class Engine(Process):
    """A mock engine that publishes its events."""

    def __init__(self, *flags, model=MODEL):
        self.model = model
        self.events, self.replay = free_port(), free_port()
        config = {
            "enable_kv_cache_events": True,
            "endpoint": f"tcp://*:{self.events}",
            "replay_endpoint": f"tcp://*:{self.replay}",
        }
        flags = ("--mock-latency", "none", "--served-model-name", model, "--mock-debug", *flags)
        super().__init__("kvsync_mockpod", "--kv-events-config", json.dumps(config), *flags)

    def entry(self, name, **more):
        """Its line in a publishers file."""
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
def stopping(*processes):
    """Stop them all at the end, whatever happens."""
    try:
        yield processes
    finally:
        for each in reversed(processes):
            each.stop()


__all__ = ["MODEL", "Engine", "Process", "free_port", "stopping"]
