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
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, Self

from kvsync_testkit.checks import Row, parse_rows
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
            last = "\n".join(self.logged()[-5:])
            raise AssertionError(f"the process ended with code {self.process.returncode}\n{last}".rstrip())
        return super()._answers(path)

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(STOP_S)


class MockEngine(Process):
    """A mock engine that publishes its events. Keyword settings become flags: `block_size=16` is `--block-size 16`."""

    def __init__(self, *flags: object, model: str = MODEL, log: Path | None = None, **settings: object) -> None:
        self.model = model
        self.events, self.replay = free_ports(2)
        config = {
            "enable_kv_cache_events": True,
            "endpoint": f"tcp://*:{self.events}",
            "replay_endpoint": f"tcp://*:{self.replay}",
        }
        own = {"mock_latency": "none", "served_model_name": model, "mock_debug": True, **settings}
        flags = ("--kv-events-config", json.dumps(config), *as_flags(own), *flags)
        super().__init__("kvsync_mockpod", *flags, log=log)

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

    def complete(self, prompt: object, **fields: object) -> Any:  # noqa: ANN401 - JSON
        """Serve one completion of a single token, and return the answer."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": 1, **fields}
        return self.ok("POST", "/v1/completions", body)

    def rows(self) -> dict[Row, int]:
        """Its own block table, which no index reads."""
        return parse_rows(self.ok("GET", "/debug/kv/blocks").splitlines())


class Index(Process):
    """An index that follows engines; they are called `engine-0`, `engine-1` and so on, unless given as entries."""

    def __init__(
        self,
        *engines: MockEngine | Mapping[str, object],
        folder: Path,
        port: int | None = None,
        log: Path | None = None,
        **settings: object,
    ) -> None:
        """Start it; `folder` takes its publishers file, and keyword settings become flags."""
        entries = [
            one.entry(f"engine-{at}") if isinstance(one, MockEngine) else dict(one) for at, one in enumerate(engines)
        ]
        self.names = [str(entry["name"]) for entry in entries]
        port = port or free_ports(1)[0]
        publishers = folder / f"publishers-{port}.yaml"
        publishers.write_text(json.dumps(entries))
        super().__init__("kvsync_indexer.main", *as_flags({"publishers": publishers, **settings}), port=port, log=log)

    def live(self) -> Self:
        """Wait until every engine is followed and trusted."""
        self.ready("/readyz")
        wait_until(
            f"the index trusts {', '.join(self.names)}",
            lambda: self.ok("GET", "/readyz")["live"] == len(self.names),
            deadline_s=READY_S,
        )
        return self

    def settled(self) -> Self:
        """Wait until the index has applied everything that the engines announced and agrees with their own tables."""
        wait_until(
            "the index agrees with the engines",
            lambda: self.ok("POST", "/v1/audit", {"wait_quiet_s": 5})["equal"],
            deadline_s=READY_S,
        )
        return self

    def match(self, prompt: Sequence[int], *, model: str = MODEL) -> dict[str, int]:
        """Blocks of the prompt that each engine holds, by name; engines that hold none are left out."""
        answer = self.ok("POST", "/v1/match", {"model": model, "token_ids": list(prompt)})
        return {row["publisher"]: row["matched_blocks"] for row in answer["matches"] if row["matched_blocks"]}

    def rows(self, name: str) -> dict[Row, int]:
        """The blocks that it holds for one engine."""
        return parse_rows(self.ok("GET", f"/v1/publishers/{name}/blocks").splitlines())


class Router(Process):
    """A router in a process of its own, before the engines that an index knows. Keyword settings become flags."""

    def __init__(self, index: Index, *, log: Path | None = None, **settings: object) -> None:
        self.index = index
        super().__init__("kvsync_router.proxy.main", *as_flags({"index_url": index.url, **settings}), log=log)

    def live(self) -> Self:
        """Wait until it knows every engine of its index."""
        self.ready("/readyz")
        wait_until(
            "the router knows every engine",
            lambda: len(self.ok("GET", "/v1/endpoints")["endpoints"]) == len(self.index.names),
            deadline_s=READY_S,
        )
        return self

    def complete(self, prompt: object, *, model: str = MODEL, **fields: object) -> tuple[str, Any]:
        """Send one completion of a single token; the name of the engine that served it, and its answer."""
        body = {"model": model, "prompt": prompt, "max_tokens": 1, **fields}
        status, headers, data = self.ask("POST", "/v1/completions", body)
        if status != 200:
            raise AssertionError(f"status {status}: {data[:500]!r}")
        return headers["x-kvsync-endpoint"], json.loads(data)


def as_flags(settings: Mapping[str, object]) -> list[object]:
    """Command-line flags for settings: `{"block_size": 16, "verbose": True}` is `--block-size 16 --verbose`.

    None and False leave a flag out; a list gives it several times.
    """
    flags: list[object] = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                flags.append(flag)
            elif one is not None and one is not False:
                flags += [flag, one]
    return flags


@contextlib.contextmanager
def stopping(*processes: Process) -> Iterator[None]:
    """Stop the processes at the end of the block, the last one first."""
    try:
        yield
    finally:
        for each in reversed(processes):
            each.stop()
