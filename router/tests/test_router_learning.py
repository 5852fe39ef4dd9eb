"""An index that joins late learns a hot prompt from the answers of its engines: mock engine, index and router."""

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kvsync_testkit.ports import free_ports
from kvsync_testkit.waiting import wait_until

DEADLINE_S = 60.0
MODEL = "kvsync/mock"
SYSTEM = list(range(1000, 1160))
BIN = Path(sys.executable).parent


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(port, path):
    def up():
        return ask(port, "GET", path)[0] == 200

    wait_until(f"port {port} answers {path}", up, deadline_s=DEADLINE_S, retry_on=(OSError,))


class World:
    """A mock engine that has served the system prompt since before its replay buffer begins, and a late index."""

    def __init__(self, tmp_path, version="0.33.0", *flags):
        self.processes = []
        self.engine, events, replay, self.index, self.router = free_ports(5)
        config = {
            "enable_kv_cache_events": True,
            "endpoint": f"tcp://*:{events}",
            "replay_endpoint": f"tcp://*:{replay}",
            "buffer_steps": 4,
        }
        self._start("kvsync-mockpod", "--host", "127.0.0.1", "--port", self.engine, "--enable-prompt-tokens-details",
                    "--mock-wire-version", version, "--kv-events-config", json.dumps(config))  # fmt: skip
        answers(self.engine, "/health")
        for number in range(8):
            self.complete(self.engine, number)
        publishers = tmp_path / "publishers.yaml"
        entry = {
            "name": "a",
            "model": MODEL,
            "endpoint": f"tcp://127.0.0.1:{events}",
            "replay_endpoint": f"tcp://127.0.0.1:{replay}",
            "http_url": f"http://127.0.0.1:{self.engine}",
        }
        publishers.write_text(yaml.safe_dump([entry]))
        self._start("kvsync-indexer", "--host", "127.0.0.1", "--port", self.index, "--router-port", self.router,
                    "--publishers", publishers, *flags)  # fmt: skip
        answers(self.index, "/readyz")
        answers(self.router, "/readyz")
        wait_until("the engine's version is known", lambda: self.row()["engine_version"], deadline_s=DEADLINE_S)

    def _start(self, program, *arguments):
        command = [str(BIN / program), *map(str, arguments)]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def complete(self, port, number):
        """Ask for the system prompt with a tail of its own; return the cached tokens."""
        prompt = [*SYSTEM, *range(5000 + 100 * number, 5040 + 100 * number)]
        status, body = ask(port, "POST", "/v1/completions", {"model": MODEL, "prompt": prompt, "max_tokens": 1})
        assert status == 200, body
        return json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"]

    def row(self):
        return json.loads(ask(self.index, "GET", "/v1/publishers")[1])["publishers"][0]

    def matched(self):
        body = json.loads(ask(self.index, "POST", "/v1/match", {"model": MODEL, "token_ids": SYSTEM})[1])
        return next((match["matched_tokens"] for match in body["matches"] if match["publisher"] == "a"), 0)

    def close(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(DEADLINE_S)


@pytest.fixture
def world(tmp_path, request):
    world = World(tmp_path, *getattr(request, "param", ()))
    yield world
    world.close()


def test_a_hot_prompt_from_before_the_history_is_learnt(world):
    assert world.row()["incomplete"]
    assert world.row()["orphans"] > 0
    assert world.matched() == 0
    numbers = iter(range(100, 200))

    def learnt():
        assert world.complete(world.router, next(numbers)) == len(SYSTEM)
        return world.matched() == len(SYSTEM)

    wait_until("the prompt is known", learnt, deadline_s=DEADLINE_S)
    assert world.row()["orphans"] == 0


@pytest.mark.parametrize("world", [("0.25.1",), ("0.33.0", "--learn-from-answers", "off")], indirect=True)
def test_nothing_is_learnt_from_engines_that_cannot_report_or_if_it_is_off(world):
    for number in range(100, 106):
        assert world.complete(world.router, number) == len(SYSTEM)
    assert world.matched() == 0
    assert world.row()["incomplete"]
