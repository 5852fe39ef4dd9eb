"""A demo that was left running: a file that says where it is and which processes it has."""

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

FILE_NAME = "kept.json"
GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class KeptProcess:
    """One process; `born` (start time in clock ticks, from /proc) tells it from a later one with its pid."""

    name: str
    pid: int
    born: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _born(self.pid) == self.born

    def signal(self, number: int) -> None:
        """Signal its group, if it is still the one we started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that outlived its command."""

    index_url: str
    router_url: str
    processes: tuple[KeptProcess, ...]

    @property
    def alive(self) -> bool:
        """Whether anything of it still runs."""
        return any(process.alive for process in self.processes)


def remember(folder: Path, index_url: str, router_url: str, processes: list[Process]) -> None:
    """Write down a run that is being left."""
    kept = tuple(
        KeptProcess(process.spec.name, process.pid, _born(process.pid))
        for process in processes
        if process.pid is not None
    )
    write_whole(folder / FILE_NAME, json.dumps(asdict(KeptRun(index_url, router_url, kept)), indent=2) + "\n")


def find(folder: Path) -> KeptRun | None:
    """The run left in `folder`, if there is one and anything of it runs."""
    try:
        fields = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        processes = tuple(KeptProcess(**process) for process in fields.pop("processes"))
        run = KeptRun(**fields, processes=processes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageProblemError(f"{folder / FILE_NAME}: cannot be read: {error}") from None
    return run if run.alive else None


def end(folder: Path) -> KeptRun | None:
    """End the run left in `folder`; what was ended, or None."""
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
    """Field 22 of /proc/PID/stat, or nothing for a process that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
