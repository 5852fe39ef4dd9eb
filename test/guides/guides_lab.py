"""A lab of local processes for the commands of the guides: a mock engine, an index and a router at ports of their own.

The commands of the guides name them by the variables ENGINE, EVENTS, REPLAY, INDEX and ROUTER, which the reader sets
once, to local processes or to forwarded ports of a cluster.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from kvsync_testkit.ports import free_ports
from kvsync_testkit.processes import MODEL, Process
from kvsync_testkit.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "The capital of France is Paris, and the capital of Italy is Rome. " * 8


class Lab:
    """The processes of one situation. Everything is started on demand and ended with the lab."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.variables: dict[str, str] = {}
        self.engine: Process | None = None
        self.index: Process | None = None
        self.router: Process | None = None

    def start_engine(self, *flags: object, **events: object) -> Process:
        """Start a mock engine; `events` replaces keys of its event configuration."""
        stream, replay = free_ports(2)
        config = {
            "enable_kv_cache_events": True,
            "endpoint": f"tcp://*:{stream}",
            "replay_endpoint": f"tcp://*:{replay}",
            **events,
        }
        common = ("--kv-events-config", json.dumps(config), "--served-model-name", MODEL, "--mock-debug")
        self.engine = engine = Process("kvsync_mockpod", *common, "--mock-latency", "none", *flags)
        self._stack.callback(self._end, engine)
        engine.ready("/health")
        self.variables |= {
            "ENGINE": engine.url,
            "EVENTS": f"tcp://127.0.0.1:{stream}",
            "REPLAY": f"tcp://127.0.0.1:{replay}",
        }
        return engine

    def start_index(self, *flags: object, **entry: object) -> Process:
        """Start an index that follows the engine; `entry` replaces fields of its publisher, None removes one."""
        assert self.engine is not None
        usual = {"name": "engine-0", "model": MODEL, "http_url": self.engine.url, "debug_url": self.engine.url}
        usual |= {"endpoint": self.variables["EVENTS"], "replay_endpoint": self.variables["REPLAY"]}
        fields = {key: value for key, value in {**usual, **entry}.items() if value is not None}
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

    def wait_restart(self) -> None:
        """Wait until the index has noticed that the engine began anew, and trusts it again."""
        wait_until(
            "the restart was noticed",
            lambda: self.row()["restarts"] == 1 and self.row()["state"] == "live",
            deadline_s=60,
        )

    def inject(self, **fault: object) -> None:
        """Give the engine a fault plan with one rule."""
        assert self.engine is not None
        self.engine.ok("PUT", "/debug/faults", {"seed": 1, "faults": [fault]})

    def _end(self, process: Process) -> None:
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGCONT)
        process.stop()

    def run(self, script: str) -> tuple[int, str]:
        """Run a script as the guide has it, and return the exit code and everything that it printed."""
        environment = {**os.environ, **self.variables, "COLUMNS": "200"}
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A lab without processes, which ends those that were started in it."""
    with contextlib.ExitStack() as stack:
        yield Lab(folder, stack)
