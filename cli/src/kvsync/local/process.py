"""One child process, which cannot outlive the command unless it is meant to.

Each child leads a process group of its own, so that Ctrl-C reaches only the command, which then ends its children in
order. Each child also asks the kernel for SIGKILL when its parent dies (PR_SET_PDEATHSIG), so that even `kill -9` of
the command leaves no orphan. A child that is meant to outlive the command does not ask for that.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvsync.errors import StartFailedError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Spec:
    """A command line and its surroundings."""

    name: str
    argv: tuple[str, ...]
    log: Path
    """File that stdout and stderr are appended to."""
    environment: Mapping[str, str] = field(default_factory=dict)


def executable(name: str) -> str:
    """The entry point `name` of the environment of this interpreter."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


class Process:
    """A child process, which can be started again."""

    def __init__(self, spec: Spec, *, outlives_us: bool = False) -> None:
        self.spec = spec
        self.starts = 0
        self._outlives_us = outlives_us
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, or None before its first start."""
        return self._child.pid if self._child is not None else None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs and before its first start."""
        return self._child.poll() if self._child is not None else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it, also after it has ended. Raises StartFailedError."""
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.spec.log.open("ab") as log:
                self._child = subprocess.Popen(
                    self.spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.spec.environment},
                    start_new_session=True,
                    # Between fork and exec it makes two system calls and takes no lock.
                    preexec_fn=None if self._outlives_us else _die_with_parent(os.getpid()),  # noqa: PLW1509
                )
        except OSError as error:
            raise StartFailedError(f"{self.spec.name}: {self.spec.argv[0]}: {error.strerror}") from None
        self.starts += 1

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def explain(self) -> str:
        """Why it ended, in one line: exit code, last line of its log, path of the log."""
        code = self.exit_code
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
        last = last_line(self.spec.log)
        return f"{self.spec.name} {how}{': ' + last if last else ''} (log: {self.spec.log})"


def last_line(path: Path) -> str:
    """The last line of a text file that is not blank, shortened."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else ""


def stop_all(processes: Sequence[Process], grace_s: float = 3.0) -> None:
    """Send SIGTERM to all, and SIGKILL to those that still run after `grace_s`."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(process.running for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in processes:
        process.kill()
