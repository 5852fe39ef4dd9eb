"""Live processes for the comparison: a mock pod and an index, and waiting for conditions."""

import contextlib
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from kvsync_testkit.ports import free_port, free_ports
from kvsync_testkit.waiting import wait_until

BIN = Path(sys.executable).parent


def wait_for(condition, what, deadline_s=20.0):
    """Poll `condition`; network errors count as "not yet"."""
    retry_on = (urllib.error.URLError, ConnectionError, TimeoutError)
    return wait_until(what, condition, deadline_s=deadline_s, retry_on=retry_on)


def consecutive_free_ports(count):
    """The first of `count` consecutive free TCP ports; ranks add their number to the port."""
    for _ in range(200):
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            base = first.getsockname()[1]
        if base + count > 65_000:
            continue
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


class Process:
    """A child process with its output in a file; ended with SIGTERM, and with SIGKILL if that has no effect."""

    def __init__(self, command, log):
        self.log = log
        with log.open("wb") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def wait_healthy(self, url):
        def healthy():
            if self.child.poll() is not None:
                raise AssertionError(f"ended with {self.child.returncode}:\n{self.log.read_text()[-2000:]}")
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status == 200

        wait_for(healthy, f"{url} answers", 30)
        return self


class Index(Process):
    """A live kvsync-indexer that follows a publishers file."""

    def __init__(self, folder):
        self.file = folder / "publishers.yaml"
        self.entries = []
        self.file.write_text("[]\n")
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [BIN / "kvsync-indexer", "--host", "127.0.0.1", "--port", self.url.rpartition(":")[2]]
        super().__init__([*command, "--publishers", self.file, "--stale-after", "8s"], folder / "index.log")
        self.wait_healthy(f"{self.url}/healthz")

    def follow(self, **entry):
        self.entries.append(entry)
        self.file.write_text(json.dumps(self.entries))

    def status(self, name):
        rows = json.loads(get(f"{self.url}/v1/publishers"))["publishers"]
        return next((row for row in rows if row["name"] == name), None)

    def lines(self, name):
        quoted = urllib.parse.quote(name, safe="")
        return get(f"{self.url}/v1/publishers/{quoted}/blocks").splitlines()

    def wait_state(self, name, state):
        return wait_for(lambda: (self.status(name) or {}).get("state") == state, f"{name} {state}: {self.status(name)}")

    def wait_live(self, name, seq):
        def live():
            row = self.status(name)
            return row if row and row["state"] == "live" and row["last_seq"] == seq else None

        return wait_for(live, f"{name} live at {seq}: {self.status(name)}")


class Pod(Process):
    """A live kvsync-mockpod of one wire version."""

    def __init__(self, folder, version, *options):
        port, events, replay = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        self.endpoint, self.replay = f"tcp://127.0.0.1:{events}", f"tcp://127.0.0.1:{replay}"
        config = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://*:{events}",
            "replay_endpoint": f"tcp://*:{replay}",
            "topic": "kv-events",
        }
        command = [BIN / "kvsync-mockpod", "--host", "127.0.0.1", "--port", str(port), "--mock-debug"]
        command += ["--mock-wire-version", version, "--kv-events-config", json.dumps(config), *options]
        super().__init__(command, folder / f"pod-{version}.log")
        self.wait_healthy(f"{self.url}/health")

    def complete(self, tokens, count):
        body = {"model": "kvsync/mock", "prompt": tokens, "max_tokens": count, "ignore_eos": True}
        return post(f"{self.url}/v1/completions", body)
