"""A lab of local processes for the commands of the guides: a mock engine, an index and a router at ports of their own.

The commands of the guides name them by the variables ENGINE, EVENTS, REPLAY, INDEX and ROUTER, which the reader sets
once, to local processes or to forwarded ports of a cluster.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from kvsync_testkit.processes import MODEL, MockEngine, Process
from kvsync_testkit.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "The capital of France is Paris, and the capital of Italy is Rome. " * 8


class Lab:
    """The processes of one situation. Everything is started on demand and ended with the lab."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.variables: dict[str, str] = {}
        self.engine: MockEngine | None = None
        self.index: Process | None = None
        self.router: Process | None = None

    def start_engine(self, *flags: object) -> MockEngine:
        self.engine = engine = MockEngine(*flags)
        self._stack.callback(self._end, engine)
        engine.ready("/health")
        self.variables |= {
            "ENGINE": engine.url,
            "EVENTS": f"tcp://127.0.0.1:{engine.events}",
            "REPLAY": f"tcp://127.0.0.1:{engine.replay}",
        }
        return engine

    def start_index(self, *flags: object, **entry: object) -> Process:
        """Start an index that follows the engine; `entry` replaces fields of its publisher, None removes one."""
        assert self.engine is not None
        fields = {key: value for key, value in self.engine.entry("engine-0", **entry).items() if value is not None}
        file = self.folder / "publishers.yaml"
        file.write_text(yaml.safe_dump([fields]))
        log = self.folder / "index.log"
        self.index = index = Process(
            "kvsync_indexer.main",
            "--publishers",
            file,
            "--stale-after",
            "2s",
            "--replay-timeout",
            "500ms",
            *flags,
            log=log,
        )
        self._stack.callback(self._end, index)
        index.ready("/healthz")
        self.variables |= {"INDEX": index.url, "INDEX_LOG": str(log), "PUBLISHERS": str(file)}
        return index

    def start_router(self) -> Process:
        assert self.index is not None
        publishers = self.variables["PUBLISHERS"]
        self.router = router = Process(
            "kvsync_router.proxy.main", "--index-url", self.index.url, "--publishers", publishers
        )
        self._stack.callback(self._end, router)
        router.ready("/readyz")
        self.variables["ROUTER"] = router.url
        return router

    def start(self) -> None:
        """The usual situation: an engine that holds the blocks of some prompts, a live index, and a router."""
        self.start_engine()
        self.start_index()
        self.wait_state("live")
        self.start_router()
        self.ask(PROMPT)
        self.wait_blocks()

    def ask(self, prompt: str, count: int = 1) -> None:
        """Send requests to the engine, each with an end of its own."""
        assert self.engine is not None
        for number in range(count):
            body = {"model": MODEL, "prompt": f"{prompt}{number}", "max_tokens": 20}
            self.engine.ok("POST", "/v1/completions", body)

    def row(self) -> dict[str, object]:
        """What the index says of the engine."""
        assert self.index is not None
        return self.index.ok("GET", "/v1/publishers")["publishers"][0]

    def wait_state(self, state: str) -> None:
        wait_until(f"the publisher is {state}", lambda: self.row()["state"] == state, deadline_s=60)

    def wait_blocks(self) -> None:
        """Wait until the index has applied everything that the engine published."""
        assert self.engine is not None

        def equal() -> bool:
            published = self.engine.ok("GET", "/debug/kv/digest")["seq"]["0"]
            return self.row()["last_seq"] == published

        wait_until("the index has caught up", equal, deadline_s=60)

    def _end(self, process: Process) -> None:
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGCONT)
        process.stop()

    def run(self, script: str) -> str:
        """Run a script as the guide has it, and return everything that it printed."""
        environment = {**os.environ, **self.variables, "COLUMNS": "200"}
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        return done.stdout + done.stderr


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A lab without processes, which ends those that were started in it."""
    with contextlib.ExitStack() as stack:
        yield Lab(folder, stack)
