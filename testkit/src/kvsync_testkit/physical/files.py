"""A real file, read and written by position without moving a file offset."""

import os
import tempfile
from pathlib import Path

from kvsync_testkit.errors import TransferError
from kvsync_testkit.physical.regions import Region, StorageKind


class DiskRegion(Region):
    """A file of `size` bytes, removed when the region is closed.

    Attributes:
        path: The file; another program may read it.
    """

    kind = StorageKind.DISK

    def __init__(self, size: int, directory: Path | None = None) -> None:
        super().__init__(size)
        self._file, path = tempfile.mkstemp(prefix="kvsync-blocks-", suffix=".bin", dir=directory)
        self.path = Path(path)
        try:
            os.ftruncate(self._file, size)
        except (OSError, OverflowError):
            self.close()
            raise

    def flush(self) -> None:
        """Wait until the device has what was written."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close and remove the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self.path.unlink(missing_ok=True)

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._file, length, offset)
        if len(data) != length:
            raise TransferError(f"{self.path.name} gave {len(data)} of {length} bytes at {offset}")
        return data

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written
