"""Measures memory, open descriptors and threads of every process once per second."""

import math
import threading
import time
from collections import defaultdict

import psutil
from soak_processes import Server
from soak_slopes import Slope, judge

EVERY_S = 1.0
UNITS = {"memory": "MiB", "descriptors": "", "threads": ""}


def allowance(server: str, size: str, points: list[tuple[float, float]]) -> float:
    """Growth that is accepted over the judged time.

    Memory may grow by 8 MiB or a tenth, because an allocator keeps what it once needed. Descriptors and threads depend
    on the number of connections at the moment of the sample. The memory of mock engines is not judged: with debug
    endpoints an engine keeps the log of its transitions and fills its replay buffer, both of which take hours to reach
    their bounds.
    """
    if size == "memory" and server.startswith("engine-"):
        return math.inf
    if size == "memory":
        return max(8.0, 0.1 * max(value for _, value in points))
    return {"descriptors": 8.0, "threads": 2.0}[size]


class Sampler:
    """Samples the servers in a thread. A process that was replaced begins a new series."""

    def __init__(self, servers: list[Server]) -> None:
        self.series: dict[tuple[str, int, str], list[tuple[float, float]]] = defaultdict(list)
        """(server, number of its life, size) -> (time, value)."""
        self.began = time.monotonic()
        self._servers = servers
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            for server in self._servers:
                self._sample(server)

    def _sample(self, server: Server) -> None:
        process, life = server.process, server.lives
        if process is None or process.poll() is not None:
            return
        try:
            found = psutil.Process(process.pid)
            sizes = {
                "memory": found.memory_info().rss / 2**20,
                "descriptors": float(found.num_fds()),
                "threads": float(found.num_threads()),
            }
        except psutil.Error:
            return  # it ended in this moment
        at = time.monotonic()
        for size, value in sizes.items():
            self.series[server.name, life, size].append((at, value))

    def slopes(self) -> list[Slope]:
        """The verdicts on all series that are long enough."""
        found = []
        for (server, life, size), points in sorted(self.series.items()):
            name = f"{server}, life {life}: {size}"
            verdict = judge(name, UNITS[size], points, allowance(server, size, points))
            found += [verdict] if verdict else []
        return found
