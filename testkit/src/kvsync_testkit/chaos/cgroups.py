"""The control groups of a process: where they are, what they use, and limits on them. Versions 1 and 2."""

import os
from pathlib import Path

from kvsync_testkit.chaos.errors import CapabilityError

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


def group_of(pid: int, controller: str) -> Path:
    """Return the folder of the group that governs `controller` for a process.

    Raises:
        CapabilityError: no mounted hierarchy has the controller, or the process has ended.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        raise CapabilityError(f"process {pid} has ended") from None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") and (_ROOT / controller).is_dir():
            return _ROOT / controller / path.lstrip("/")
        if not controllers and (_ROOT / "cgroup.controllers").exists():
            return _ROOT / path.lstrip("/")
    raise CapabilityError(f"no cgroup controller '{controller}' on this machine")


def own_group(controller: str, name: str) -> Path:
    """Create a group beside that of this process and return its folder.

    Raises:
        CapabilityError: it cannot be created.
    """
    if not (_ROOT / controller).is_dir() and not (_ROOT / "cgroup.controllers").exists():
        raise CapabilityError(f"no cgroup controller '{controller}' on this machine")
    base = _ROOT / controller if (_ROOT / controller).is_dir() else _ROOT
    folder = base / name
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CapabilityError(f"no cgroup can be created: {error}") from None
    return folder


def join(folder: Path, pid: int) -> None:
    """Move a process into a group."""
    (folder / "cgroup.procs").write_text(str(pid))


def set_share(folder: Path, share: float) -> str:
    """Limit a group to a share of one processor, and return the previous setting for `restore_share`."""
    modern = folder / "cpu.max"
    file = modern if modern.exists() else folder / "cpu.cfs_quota_us"
    before = file.read_text().strip()
    quota = int(share * _PERIOD_US)
    file.write_text(f"{quota} {_PERIOD_US}" if modern.exists() else str(quota))
    return before


def restore_share(folder: Path, before: str) -> None:
    """Set what `set_share` returned."""
    file = folder / "cpu.max" if (folder / "cpu.max").exists() else folder / "cpu.cfs_quota_us"
    file.write_text(before)


def limit_operations(folder: Path, path: Path, per_s: int) -> None:
    """Limit the reads and the writes per second of a group on the device that has `path`; 0 lifts the limit.

    Raises:
        CapabilityError: the kernel does not limit this device.
    """
    device = _disk_of(path)
    try:
        if (folder / "io.max").exists():
            value = str(per_s or "max")
            (folder / "io.max").write_text(f"{device} riops={value} wiops={value}")
        else:
            for way in ("read", "write"):
                (folder / f"blkio.throttle.{way}_iops_device").write_text(f"{device} {per_s}")
    except OSError as error:
        raise CapabilityError(f"the kernel cannot limit device {device}: {error}") from None


def _disk_of(path: Path) -> str:
    """Return MAJOR:MINOR of the whole disk, because a partition cannot be limited."""
    number = path.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    folder = Path("/sys/dev/block") / name
    if (folder / "partition").exists():
        return (folder.resolve().parent / "dev").read_text().strip()
    return name


def throttled(folder: Path) -> int:
    """Return how often the group had to wait for its next period."""
    pairs = (line.split() for line in (folder / "cpu.stat").read_text().splitlines())
    return next((int(value) for name, value in pairs if name == "nr_throttled"), 0)


def members(folder: Path) -> list[int]:
    """Return the processes in a group."""
    return [int(line) for line in (folder / "cgroup.procs").read_text().split()]


def memory_used(pid: int) -> int:
    """Return the bytes of memory that the group of a process uses."""
    folder = group_of(pid, "memory")
    old = folder / "memory.usage_in_bytes"
    return int((old if old.exists() else folder / "memory.current").read_text())
