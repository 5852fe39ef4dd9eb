"""A set of child processes that are started together and all ended at the end."""

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from kvsync.errors import StartFailedError
from kvsync.local.process import Process, Spec, stop_all

START_DEADLINE_S = 60.0
POLL_S = 0.05


class Supervisor:
    """Child processes by name."""

    def __init__(self, *, outlive_us: bool = False) -> None:
        self._outlive_us = outlive_us
        self._processes: dict[str, Process] = {}

    def __getitem__(self, name: str) -> Process:
        return self._processes[name]

    def processes(self) -> list[Process]:
        """All of them, in the order of their first start."""
        return list(self._processes.values())

    def start(self, spec: Spec) -> Process:
        """Start one more process. Raises StartFailedError."""
        process = Process(spec, outlives_us=self._outlive_us)
        self._processes[spec.name] = process
        process.start()
        return process

    def forget(self, name: str) -> None:
        """End one process and remove it."""
        process = self._processes.pop(name)
        stop_all([process])

    def check(self, expected_dead: Sequence[str] = ()) -> None:
        """Raise StartFailedError for the first process that has ended unexpectedly."""
        for process in self._processes.values():
            if process.exit_code is not None and process.spec.name not in expected_dead:
                raise StartFailedError(process.explain())

    def release(self) -> None:
        """Leave every process running, and let go of it."""
        self._processes.clear()

    def close(self) -> None:
        """End every process."""
        stop_all(list(self._processes.values())[::-1])
        self._processes.clear()


async def wait_http(
    session: aiohttp.ClientSession, process: Process, url: str, deadline_s: float = START_DEADLINE_S
) -> None:
    """Poll `url` until it answers 200. Raises StartFailedError if the process ends or the deadline passes."""
    end = time.monotonic() + deadline_s
    last = "no answer"
    while time.monotonic() < end:
        if process.exit_code is not None:
            raise StartFailedError(process.explain())
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
                if response.status == 200:
                    return
                last = f"status {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            last = type(error).__name__
        await asyncio.sleep(POLL_S)
    raise StartFailedError(
        f"{process.spec.name} is not ready after {deadline_s:.0f} s ({url}: {last}; log: {process.spec.log})"
    )
