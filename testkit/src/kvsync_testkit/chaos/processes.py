"""Processes of the local backend: started with a log file and in control groups of their own, killed, and ended."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvsync_testkit.chaos import cgroups
from kvsync_testkit.chaos.errors import CapabilityError
from kvsync_testkit.waiting import pause

CONTROLLERS = ("cpu", "cpuacct", "memory", "blkio")


class Process:
    """A command that can be killed and started again."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._command, self._log = list(command), log
        self._environment = {**os.environ, **(environment or {})}
        self._running: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The process id, if the process runs."""
        running = self._running
        return (running.pid,) if running is not None and running.poll() is None else ()

    def start(self) -> None:
        """Start the process in control groups of its own, where this user can create them."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        if os.geteuid() == 0:
            self._isolate(self._running.pid)

    def _isolate(self, pid: int) -> None:
        if not self._groups:
            stem = f"kvsync-chaos-{os.getpid()}-{self.name}"
            with contextlib.suppress(CapabilityError):
                self._groups = list({cgroups.own_group(controller, stem) for controller in CONTROLLERS})
        for folder in self._groups:
            with contextlib.suppress(OSError):
                cgroups.join(folder, pid)

    def kill(self) -> None:
        """End the process with SIGKILL and wait until it is gone."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait(20)
            self._running = None

    def end(self) -> None:
        """Kill the process and remove its control groups."""
        self.kill()
        for folder in self._groups:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    break
                pause(0.05)
        self._groups.clear()

    def tail(self, lines: int = 5) -> str:
        """Return the last lines of the log."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        return ""
