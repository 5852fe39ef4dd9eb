"""Opening a region of a kind, and asking beforehand whether the system grants it."""

import mmap
from pathlib import Path

from kvsync_testkit.errors import StorageUnavailableError
from kvsync_testkit.physical.files import DiskRegion
from kvsync_testkit.physical.memory import PinnedRegion, SystemRegion
from kvsync_testkit.physical.regions import Region, StorageKind
from kvsync_testkit.physical.shared import SharedRegion


def open_region(kind: StorageKind, size: int, directory: Path | None = None) -> Region:
    """`size` zero bytes of this kind; `directory` is where disk files go (default: the system's).

    Raises:
        StorageUnavailableError: the system does not grant this kind, or not this much of it.
    """
    try:
        return _open(kind, size, directory)
    except (OSError, OverflowError) as error:
        raise StorageUnavailableError(f"{kind.value} storage", f"{size} bytes were refused: {error}") from error


def _open(kind: StorageKind, size: int, directory: Path | None) -> Region:
    match kind:
        case StorageKind.SYSTEM:
            return SystemRegion(size)
        case StorageKind.PINNED:
            return PinnedRegion(size)
        case StorageKind.DISK:
            return DiskRegion(size, directory)
        case StorageKind.SHARED:
            return SharedRegion(size)


def storage_unavailable(kind: StorageKind, size: int = mmap.PAGESIZE) -> str | None:
    """Why this kind cannot be had here, in words for a skip message; None if it can."""
    try:
        open_region(kind, size).close()
    except StorageUnavailableError as error:
        return error.reason
    return None
