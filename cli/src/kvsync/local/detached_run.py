"""The runs of this user that other commands can find: what `kvsync up` runs, and what `kvsync demo --keep` has left.

Each run has one file in the user's state folder, so that `match`, `audit`, `doctor` and `stop` find it from any folder.
A file whose processes have all ended counts as absent, and is removed when it is found.
"""

import contextlib
import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kvsync.errors import UsageProblemError
from kvsync.local.process import Process
from kvsync.report.files import write_whole

GRACE_S = 10.0
"""Longer than a pod may take to end its requests, and `up` to end its pods."""


@dataclass(frozen=True, slots=True)
class DetachedProcess:
    """One process. Its start time in clock ticks, `born`, tells it from a later process with the same pid."""

    name: str
    pid: int
    born: str
    leads_group: bool = True
    """Whether signals go to its process group; otherwise they go to the process alone."""

    @property
    def alive(self) -> bool:
        """Whether this process still runs."""
        return _born(self.pid) == self.born

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if self.leads_group else os.kill)(self.pid, number)


@dataclass(frozen=True, slots=True)
class DetachedRun:
    """A run that other commands may ask and end."""

    command: str
    """What started it: `demo` or `up`."""
    folder: str
    """Absolute path of its output folder, of which only one run exists at a time."""
    started_at: float
    """Seconds of the wall clock."""
    index_url: str | None
    """Base URL of its index, the first one if there are several."""
    router_url: str | None
    processes: tuple[DetachedProcess, ...]

    @property
    def alive(self) -> bool:
        """Whether any of its processes still runs."""
        return any(process.alive for process in self.processes)

    def describe(self) -> str:
        """What it is and where, in a few words."""
        return f"{self.command} in {self.folder}" + (f", index {self.index_url}" if self.index_url else "")


def remember(folder: Path, index_url: str, router_url: str, processes: list[Process]) -> None:
    """Record a demo whose processes are left running. Raises UsageProblemError if the file cannot be written."""
    detached = tuple(
        DetachedProcess(process.spec.name, process.pid, _born(process.pid))
        for process in processes
        if process.pid is not None
    )
    _record("demo", folder, index_url, router_url, detached)


def remember_this_process(command: str, folder: Path, index_url: str | None, router_url: str | None) -> None:
    """Record a run that ends with this process. Raises UsageProblemError if the file cannot be written."""
    own = DetachedProcess(command, os.getpid(), _born(os.getpid()), leads_group=False)
    _record(command, folder, index_url, router_url, (own,))


def forget(folder: Path) -> None:
    """Remove the record of the run in `folder`, if there is one."""
    _file(folder).unlink(missing_ok=True)


def find(folder: Path) -> DetachedRun | None:
    """The run in `folder`, if any of its processes still runs. Raises UsageProblemError for an unreadable record."""
    return _read(_file(folder))


def find_all() -> list[DetachedRun]:
    """Every run of this user that still exists, the newest first. Records of others and unreadable ones are ignored."""
    runs: list[DetachedRun] = []
    for path in _folder().glob("*.json"):
        with contextlib.suppress(UsageProblemError, FileNotFoundError):
            run = _read(path) if path.stat().st_uid == os.getuid() else None
            if run is not None:
                runs.append(run)
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


def end(run: DetachedRun) -> None:
    """End every process of the run, and remove its record."""
    for process in run.processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while run.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in run.processes:
        process.signal(signal.SIGKILL)
    forget(Path(run.folder))


def _record(
    command: str,
    folder: Path,
    index_url: str | None,
    router_url: str | None,
    processes: Sequence[DetachedProcess],
) -> None:
    run = DetachedRun(command, str(folder.absolute()), time.time(), index_url, router_url, tuple(processes))
    write_whole(_file(folder), json.dumps(asdict(run), indent=2) + "\n")


def _read(path: Path) -> DetachedRun | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        processes = tuple(DetachedProcess(**process) for process in fields.pop("processes"))
        run = DetachedRun(**fields, processes=processes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageProblemError(f"{path}: cannot be read: {error}") from None
    if run.alive:
        return run
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    return None


def _file(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return _folder() / f"{name}.json"


def _folder() -> Path:
    """Where the records are: below XDG_STATE_HOME or ~/.local/state, or if that is read-only with temporary files."""
    given = os.environ.get("XDG_STATE_HOME", "")
    home = Path(given) if Path(given).is_absolute() else Path("~/.local/state").expanduser()
    if not home.is_absolute() or not _writable(home):
        home = Path(tempfile.gettempdir()) / f"kvsync-{os.getuid()}"
    return home / "kvsync" / "runs"


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that exists, can be written to."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _born(pid: int) -> str:
    """Field 22 of /proc/PID/stat, or an empty string for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
