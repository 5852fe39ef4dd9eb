"""A demo that was left running with `--keep`: a file in its folder says where it is and which processes it has."""

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from kvsync.errors import UsageProblemError
from kvsync.local.process import Process
from kvsync.report.files import write_whole

DEFAULT_FOLDER = Path("out/demo")
FILE_NAME = "kept.json"
GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class DetachedProcess:
    """One process. Its start time in clock ticks, `born`, tells it from a later process with the same pid."""

    name: str
    pid: int
    born: str

    @property
    def alive(self) -> bool:
        """Whether this process still runs."""
        return _born(self.pid) == self.born

    def signal(self, number: int) -> None:
        """Send a signal to its process group, if it still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


@dataclass(frozen=True, slots=True)
class DetachedRun:
    """A run whose processes outlive the command that started them."""

    index_url: str
    router_url: str
    processes: tuple[DetachedProcess, ...]

    @property
    def alive(self) -> bool:
        """Whether any of its processes still runs."""
        return any(process.alive for process in self.processes)


def remember(folder: Path, index_url: str, router_url: str, processes: list[Process]) -> None:
    """Record a run whose processes are left running."""
    detached = tuple(
        DetachedProcess(process.spec.name, process.pid, _born(process.pid))
        for process in processes
        if process.pid is not None
    )
    write_whole(folder / FILE_NAME, json.dumps(asdict(DetachedRun(index_url, router_url, detached)), indent=2) + "\n")


def find(folder: Path) -> DetachedRun | None:
    """The run that was left in `folder`, if any of its processes still runs. Raises UsageProblemError."""
    try:
        fields = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        processes = tuple(DetachedProcess(**process) for process in fields.pop("processes"))
        run = DetachedRun(**fields, processes=processes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageProblemError(f"{folder / FILE_NAME}: cannot be read: {error}") from None
    return run if run.alive else None


def end(folder: Path) -> DetachedRun | None:
    """End the run that was left in `folder`, and return it; None if nothing ran."""
    run = find(folder)
    if run is not None:
        for process in run.processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while run.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in run.processes:
            process.signal(signal.SIGKILL)
    (folder / FILE_NAME).unlink(missing_ok=True)
    return run


def _born(pid: int) -> str:
    """Field 22 of /proc/PID/stat, or an empty string for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
